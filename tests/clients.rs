//! Clients that others wrote, as they are, straight to a hub and through proxies, while the hub comes and goes. The proxies
//! run with what docs/guides/proxies.md shows; docs/guides/sse.md is about these clients.

mod listeners;
mod route;

use futures_util::future::join_all;

use self::{listeners::Listeners, route::Route};
use crate::support::port::free_port;

/// What `tests/clients/listen.py` and `tests/clients/listen.mjs` have.
const CLIENTS: [&str; 10] = [
    "aiohttp",
    "chromium with a cookie",
    "chromium with a ticket",
    "curl",
    "eventsource",
    "fetch-event-source",
    "httpx-sse",
    "reconnecting-websocket",
    "sseclient",
    "sseclient-py",
];

#[tokio::test]
async fn clients_of_others_get_each_event_once_or_hear_of_a_gap() {
    let page = free_port();
    let mut routes =
        [Route::direct(page).await, Route::nginx(page).await, Route::haproxy(page).await];
    let mut all = Listeners::start(&CLIENTS, &routes, page);
    all.until("the stream's beginning", |it| it.is_placed()).await;
    join_all(routes.iter().map(|route| route.publish(0..5))).await;
    all.until("the first events", |it| it.next() == 5).await;

    // Killed, and asked while it is away: what a proxy answers then must not be the end.
    routes.iter_mut().for_each(Route::kill);
    let cut = all.failures();
    all.until("an attempt while the hub is away", |it| it.failures >= cut[&it.name] + 2).await;
    join_all(routes.iter_mut().map(Route::start)).await;
    join_all(routes.iter().map(|route| route.publish(5..10))).await;
    all.until("what was published after the hub was killed", |it| it.next() == 10).await;

    // Stopped in good order, when streams are told to come back.
    join_all(routes.iter_mut().map(Route::stop)).await;
    join_all(routes.iter_mut().map(Route::start)).await;
    join_all(routes.iter().map(|route| route.publish(10..15))).await;
    all.until("what was published after the hub was stopped", |it| it.next() == 15).await;

    // With another log: nobody can say what was lost, so that a gap must be said.
    assert!(all.gaps().is_empty(), "{:?}", all.gaps());
    routes.iter_mut().for_each(Route::kill);
    routes.iter().for_each(Route::lose_the_log);
    join_all(routes.iter_mut().map(Route::start)).await;
    all.until("the gap", |it| it.gaps == ["epoch"]).await;
    join_all(routes.iter().map(|route| route.publish(15..20))).await;
    all.until("what was published after the gap", |it| it.next() == 20).await;
    all.assert_faultless();
}

#[test]
fn the_guide_shows_what_haproxy_runs_with() {
    let read = |path: &str| {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        std::fs::read_to_string(path).unwrap()
    };
    let (guide, settings) = (read("docs/guides/proxies.md"), read("config/haproxy.cfg"));
    let shown: Vec<&str> =
        guide.split("```haproxy\n").skip(1).map(|rest| rest.split_once("```").unwrap().0).collect();
    assert_eq!(shown.len(), 3);
    for block in shown {
        assert!(settings.contains(block), "not in config/haproxy.cfg:\n{block}");
    }
}
