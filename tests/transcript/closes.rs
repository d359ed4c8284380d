//! Every close code, with its reason and what comes before it.

use std::net::SocketAddr;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use pulsehub::auth::ApiKeys;
use serde_json::json;
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::tungstenite::Message;

use super::{
    request::{delete, post},
    scene::{NOW, Scene},
};
use crate::support::hub::PROTOCOL;

const PATH: &str = "/ws/real-time";

#[tokio::test]
async fn what_breaks_the_protocol() {
    let mut scene = Scene::start("closes_4400", "[limits]\nframe = \"1 KiB\"\n").await;
    let (ada, bob) = (scene.user("ada", &["a.*"]), scene.user("bob", &["a.*"]));
    for text in [
        "nonsense",
        "[1]",
        r#"{"id":1}"#,
        r#"{"type":"pong"}"#,
        r#"{"type":"subscribe","id":1,"sub":"s","topics":["a.*"]}"#,
        r#"{"type":"connect"}"#,
        r#"{"type":"connect","id":1,"token":7}"#,
        r#"{"type":"shout","id":1}"#,
    ] {
        let mut socket = scene.socket("ada").await;
        scene.say_text(&mut socket, text).await;
        scene.hear_close(socket).await;
    }
    scene.note("after `connect`");
    let mut socket = scene.connected("ada", &ada).await;
    scene.say_text(&mut socket, "nonsense").await;
    scene.hear_close(socket).await;
    scene.note("a binary frame");
    let mut socket = scene.connected("ada", &ada).await;
    socket.client.send_raw(Message::binary(vec![1, 2, 3])).await;
    scene.hear_close(socket).await;
    scene.note("a message of more than limits.frame");
    let mut socket = scene.connected("ada", &ada).await;
    scene.say_text(&mut socket, &" ".repeat(5000)).await;
    scene.hear_close(socket).await;
    scene.note("credentials that differ, or cannot be read");
    let bearer = format!("Bearer {}", ada.token);
    for headers in [
        vec![PROTOCOL, ("authorization", bearer.as_str()), ("x-api-key", &bob.token)],
        vec![PROTOCOL, ("authorization", "Basic YTpi")],
        vec![("sec-websocket-protocol", "hub.v1, base64url.bearer.@")],
    ] {
        let socket = scene.socket_at("ada", PATH, &headers).await;
        scene.hear_close(socket).await;
    }
    let mut socket = scene.socket_at("ada", PATH, &[PROTOCOL, ("authorization", &bearer)]).await;
    scene.say(&mut socket, &json!({"type": "connect", "id": 1, "token": bob.token})).await;
    scene.hear_close(socket).await;
    let socket = scene.socket_at("ada", &format!("{PATH}?token={}", ada.token), &[PROTOCOL]).await;
    scene.hear_close(socket).await;
    scene.end();
}

#[tokio::test]
async fn who_may_not_come_in() {
    let settings = "[http]\nallowed_origins = [\"https://dash.example\"]\n";
    let mut scene = Scene::start("closes_of_access", settings).await;
    let ada = scene.user("ada", &["a.*"]);

    scene.note("whose token is good for a second");
    let brief = scene.user_for("brief", &["a.*"], None, 1);
    let stays = scene.connected("brief", &brief).await;

    scene.note("4401");
    let mut socket = scene.socket("ada").await;
    scene.say(&mut socket, &json!({"type": "connect", "id": 1})).await;
    scene.hear_close(socket).await;
    let mut socket = scene.socket("ada").await;
    scene.say(&mut socket, &json!({"type": "connect", "id": 1, "token": "nonsense"})).await;
    scene.hear_close(socket).await;
    for headers in [
        [PROTOCOL, ("x-api-key", "phk_0123456789abcdef_nonsense")],
        [PROTOCOL, ("cookie", "pulsehub_session=nonsense")],
    ] {
        let socket = scene.socket_at("ada", PATH, &headers).await;
        scene.hear_close(socket).await;
    }
    let socket = scene.socket_at("ada", &format!("{PATH}?ticket=nonsense"), &[PROTOCOL]).await;
    scene.hear_close(socket).await;

    scene.note("4401: a key that is revoked");
    let (id, key) = scene.hub.make_key("machine", &["a.*"]).await;
    let machine = scene.known_as("machine", key);
    let socket = scene.connected("machine", &machine).await;
    let store = pulsehub::store::Store::open(&scene.hub.data(), scene.clock.clone()).unwrap();
    assert!(ApiKeys::new(&store).revoke(&id).await.unwrap());
    scene.hear_close(socket).await;

    scene.note("4403: a page of another origin");
    let foreign = [PROTOCOL, ("origin", "https://evil.example"), ("x-api-key", &*ada.token)];
    let socket = scene.socket_at("ada", PATH, &foreign).await;
    scene.hear_close(socket).await;
    let allowed = [PROTOCOL, ("origin", "https://dash.example"), ("x-api-key", &*ada.token)];
    let mut socket = scene.socket_at("ada", PATH, &allowed).await;
    scene.talk(&mut socket, &json!({"type": "connect", "id": 1})).await;

    scene.note("4406");
    let other = [("sec-websocket-protocol", "mqtt"), ("x-api-key", &*ada.token)];
    let opened = crate::support::hub::Client::open(scene.hub.address(), PATH, &other).await;
    assert!(opened.is_err(), "the client gives up: none of its subprotocols was chosen");
    let bearer = format!("base64url.bearer.{}", URL_SAFE_NO_PAD.encode(&ada.token));
    scene.call(&bearer, "<bearer of ada>");
    let key = [("x-api-key", &*ada.token), PROTOCOL];
    let socket = scene.socket_at("ada", "/api/dashboard/ws/real-time", &key).await;
    scene.hear_close(socket).await;

    scene.note("4440: that second is over; and at the door");
    scene.hear_close(stays).await;
    scene.clock.set(NOW + 600_000);
    let socket = scene.socket_at("brief", PATH, &[PROTOCOL, ("x-api-key", &brief.token)]).await;
    scene.hear_close(socket).await;
    let mut socket = scene.socket("brief").await;
    scene.say(&mut socket, &json!({"type": "connect", "id": 1, "token": brief.token})).await;
    scene.hear_close(socket).await;
    scene.end();
}

#[tokio::test]
async fn who_is_sent_away_for_a_while() {
    let settings = "[limits]\nconnections_per_principal = 1\nmessages_per_second = 5\nsubscriptions = 1\n\
                    views_per_principal = 1\n[http]\ndrain = \"100ms\"\n";
    let mut scene = Scene::start("closes_for_a_while", settings).await;
    let ada = scene.user("ada", &["a.*"]);

    scene.note("4429: connections");
    let mut first = scene.connected("ada", &ada).await;
    let mut second = scene.socket("ada again").await;
    let connect = json!({"type": "connect", "id": 1, "token": ada.token});
    scene.say(&mut second, &connect).await;
    scene.hear_close(second).await;

    scene.note("4429: messages");
    for _ in 0..100 {
        if first.client.try_send(json!({"type": "pong"})).await.is_err() {
            break;
        }
    }
    scene.hear_close(first).await;
    scene.hub.metric_becomes("pulsehub_connections", 0.0).await;

    scene.note("1012: the node is drained");
    let root = scene.admin("root");
    let socket = scene.connected("ada", &ada).await;
    let body = json!({"node": "all"});
    scene.quietly(post("/api/v1/drain").by(&root).json(&body)).await;
    scene.hear_close(socket).await;
    scene.quietly(delete("/api/v1/drain?node=all").by(&root)).await;

    scene.note("4408: no `connect`, and no pong");
    scene.change("[socket]\nconnect_timeout = \"100ms\"\n").await;
    let silent = scene.socket("silent").await;
    scene.hear_close(silent).await;
    scene.change("[socket]\nping = \"1s\"\npong_timeout = \"100ms\"\n").await;
    let deaf = scene.connected("deaf", &ada).await;
    scene.hear_close(deaf).await;

    scene.note("1013: a silent socket makes room");
    scene.change("[limits]\nconnections = 16\n").await;
    let silent = scene.socket("silent").await;
    let address = scene.hub.address();
    let mut others = Vec::new();
    for n in 0..14 {
        others.push(from(address, [127, 0, 0, 2 + n % 2]).await);
    }
    scene.hear_close(silent).await;
    drop(others);
    scene.end();
}

/// A connection from another address of this machine.
async fn from(address: SocketAddr, own: [u8; 4]) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((own, 0).into()).unwrap();
    socket.connect(address).await.unwrap()
}
