//! Synthetic producers for trying out: the four systems the hub is made for, each as a client of its
//! own that speaks that system's own requests to a real hub over real sockets.
//!
//! Nobody's numbers are in it: everything follows from a seed and the hour of a day.

mod chance;
mod client;
mod day;
pub mod flext;
mod locanext;
mod mark;
mod timetracker;
mod voicehive;

use reqwest::Url;
use secrecy::SecretString;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    chance::Chance,
    client::{Client, TokenHeader},
    locanext::LocaNext,
    timetracker::TimeTracker,
    voicehive::VoiceHive,
};
pub use self::{
    day::Day,
    mark::{MarkError, is_marked, mark},
};
use crate::time::Clock;

/// A producer that publishes over HTTP: its name, and what it must be allowed to publish.
pub const PRODUCERS: [(&str, &str); 3] = [
    ("demo-locanext", "locanext.**"),
    ("demo-voicehive", "voicehive.**"),
    ("demo-timetracker", "timetracker.**"),
];

/// Starts a producer for each of [`PRODUCERS`] on `tasks`, until `stop`: they publish to `hub`, each with
/// its token.
pub fn start(
    hub: &Url,
    tokens: [SecretString; 3],
    day: &Day,
    clock: &Clock,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> Result<(), reqwest::Error> {
    let [locanext, voicehive, timetracker] = tokens;
    let [one, two, three] = [1, 2, 3].map(|stream| Chance::new(day.seed(), stream));
    let client = |token, header| Client::new(hub.clone(), token, header, day.clone());
    let client_one = client(locanext, TokenHeader::Bearer)?;
    let client_two = client(voicehive, TokenHeader::Bearer)?;
    let client_three = client(timetracker, TokenHeader::ApiKey)?;
    tasks.spawn(client_one.drive(LocaNext::new(one, clock.clone()), stop.clone()));
    tasks.spawn(client_two.drive(VoiceHive::new(two), stop.clone()));
    tasks.spawn(client_three.drive(TimeTracker::new(three, clock.clone()), stop.clone()));
    Ok(())
}
