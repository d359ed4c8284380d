//! The wire as it is today: fixed scripts of requests, sockets and streams, and all that comes back, against the texts in
//! `tests/transcript`.
//!
//! A text is never edited by hand: `UPDATE_TRANSCRIPT=1 cargo test --test hub transcript` writes all of them anew, and the
//! diff of the commit shows what others will see change.

mod closes;
mod command_line;
mod complete;
mod conversation;
mod gaps;
mod instances;
pub(crate) mod lists;
mod names;
mod nodes;
mod producers;
mod projections;
mod raw;
mod reading;
mod record;
mod refusals;
mod request;
mod scene;
mod sessions;
mod simple;
mod socket;
mod stream;
mod streams;
