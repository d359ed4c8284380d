//! Signing in: links, sessions, tickets, and what they let in.

use serde_json::json;

use super::{
    request::{delete, get, post},
    scene::Scene,
};
use crate::support::hub::PROTOCOL;

#[tokio::test]
async fn sessions_and_tickets() {
    let mut scene = Scene::start("sessions", "").await;
    let ada = scene.user("ada", &["a.*"]);
    let own = format!("http://{}", scene.hub.address());

    scene.note("by a link");
    let code = scene.hub.app().sign_in_code().await.unwrap();
    scene.call(&code, "<code>");
    let answer = scene.ask(post("/api/v1/session").json(&json!({"code": code}))).await;
    let cookie = answer.headers["set-cookie"].to_str().unwrap();
    let cookie = cookie.split(';').next().unwrap().to_owned();
    scene.ask(post("/api/v1/session").json(&json!({"code": code}))).await;
    scene.ask(get("/api/v1/session").with("cookie", &cookie)).await;
    scene
        .ask(get("/api/v1/session").with("cookie", &cookie).with("sec-fetch-site", "cross-site"))
        .await;
    let headers = [PROTOCOL, ("origin", own.as_str()), ("cookie", cookie.as_str())];
    let mut socket = scene.socket_at("admin", "/ws/real-time", &headers).await;
    scene.talk(&mut socket, &json!({"type": "connect", "id": 1})).await;
    let foreign = [("cookie", cookie.as_str()), ("origin", "https://evil.example")];
    let closed = scene.socket_at("evil", "/ws/real-time?topics=a.*", &foreign).await;
    scene.hear_close(closed).await;
    scene.ask(delete("/api/v1/session").with("cookie", &cookie)).await; // from no page
    scene.ask(delete("/api/v1/session").with("cookie", &cookie).with("origin", &own)).await;
    scene.hear_close(socket).await;
    scene.ask(get("/api/v1/session").with("cookie", &cookie)).await;

    scene.note("by a token");
    let sign_in = post("/api/v1/session").json(&json!({"token": ada.token}));
    scene.ask(sign_in).await;
    let foreign = post("/api/v1/session").with("origin", "https://evil.example");
    scene.ask(foreign.json(&json!({"token": ada.token}))).await;
    scene.ask(get("/api/v1/session").by(&ada)).await;
    scene.ask(get("/api/v1/session")).await;
    let (_, key) = scene.hub.make_key("machine", &["a.*"]).await;
    let machine = scene.known_as("machine", key);
    scene.ask(get("/api/v1/session").by(&machine)).await;
    let root = scene.admin("root");
    scene.ask(get("/api/v1/session").by(&root)).await;

    scene.note("a ticket, once");
    let ticket = scene.ask(post("/api/v1/tickets").by(&ada)).await;
    let ticket = ticket.json["ticket"].as_str().unwrap().to_owned();
    let path = format!("/ws/real-time?ticket={ticket}");
    let mut socket = scene.socket_at("ada", &path, &[PROTOCOL]).await;
    scene.talk(&mut socket, &json!({"type": "connect", "id": 1})).await;
    let again = scene.socket_at("ada again", &path, &[PROTOCOL]).await;
    scene.hear_close(again).await;

    scene.note("marked Secure");
    scene.change("[http]\nsecure_cookie = true\n").await;
    let ada = scene.user("ada", &["a.*"]);
    scene.ask(post("/api/v1/session").json(&json!({"token": ada.token}))).await;

    scene.note("without credentials");
    scene.change("[auth.anonymous]\nsubscribe = [\"public.**\"]\npublish = []\n").await;
    scene.ask(get("/api/v1/session")).await;
    let mut socket = scene.socket("nobody").await;
    scene.talk(&mut socket, &json!({"type": "connect", "id": 1})).await;
    let publish = json!({"type": "publish", "id": 2, "events": [{"topic": "public.b"}]});
    scene.talk(&mut socket, &publish).await;
    scene.end();
}

#[tokio::test]
async fn pages_of_other_origins() {
    let settings = "[http]\nallowed_origins = [\"https://dash.example\"]\n";
    let mut scene = Scene::start("origins", settings).await;
    let ada = scene.user("ada", &["a.*"]);
    for origin in ["https://dash.example", "https://evil.example"] {
        let asked =
            super::request::Request::new("OPTIONS", "/api/v1/publish").with("origin", origin);
        let asked = asked.with("access-control-request-method", "POST");
        scene.ask(asked.with("access-control-request-headers", "authorization")).await;
        scene.ask(get("/api/v1/session").by(&ada).with("origin", origin)).await;
    }
    scene.ask(get("/api/v1/session").by(&ada).with("x-request-id", "my-own:1")).await;
    scene.end();
}
