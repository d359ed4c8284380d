//! Refusals over HTTP: every code that can be had without a failure of the hub or of a disk.

use serde_json::json;
use tokio::{io::AsyncWriteExt as _, net::TcpStream};

use crate::support::remote_write;

use super::{
    request::{Request, get, post},
    scene::{NOW, Scene},
};

#[tokio::test]
async fn what_is_refused_as_it_is() {
    let settings = "[limits]\nevent = \"1 KiB\"\nbody = \"4 KiB\"\nsmall_body = \"1 KiB\"\nbatch = 3\nreplay = 10\n\
                    patterns = 2\n[journal]\nmax_topics = 3\n[instances]\nmax = 1\n[http]\nbody_timeout = \"2s\"\n";
    let mut scene = Scene::start("refusals", settings).await;
    let ada = scene.user("ada", &["a.*", "b.**"]);
    let publish = || post("/api/v1/publish").by(&ada);
    let event = json!({"topic": "a.b"});

    scene.note("who may not come in");
    scene.ask(post("/api/v1/publish").json(&event)).await;
    scene.ask(post("/api/v1/publish").with("authorization", "Basic YTpi").json(&event)).await;
    scene.ask(post("/api/v1/publish").with("x-api-key", "nonsense").json(&event)).await;
    scene.ask(publish().with("x-api-key", "another").json(&event)).await;
    let brief = scene.user_for("brief", &["a.*"], None, 1);
    scene.clock.set(NOW + 600_000);
    scene.ask(post("/api/v1/publish").by(&brief).json(&event)).await;
    scene.clock.set(NOW);
    let cookie = "pulsehub_session=nonsense";
    scene.ask(get("/api/v1/session").with("cookie", cookie)).await;
    scene
        .ask(post("/api/v1/tickets").with("cookie", cookie).with("origin", "https://evil.example"))
        .await;
    scene.ask(get("/healthz").with("host", "evil.example")).await;

    scene.note("what may not be done");
    scene.ask(publish().json(&json!([{"topic": "a.b"}, {"topic": "c.d"}, {"topic": "c.e"}]))).await;
    scene.ask(publish().json(&json!({"topic": "hub.x"}))).await;
    scene.ask(publish().json(&json!({"topic": "voicehive.dashboard.summary"}))).await;
    for path in [
        "/api/v1/history?topics=c.*,a.b",
        "/api/v1/connections",
        "/api/v1/nodes",
        "/api/v1/instances?app=tt",
        "/api/dashboard/metrics",
    ] {
        scene.ask(get(path).by(&ada)).await;
    }
    scene.ask(post("/api/tt/metrics").by(&ada).json(&json!({"metrics": {"n": 1}}))).await;
    let instance = json!({"app_identifier": "tt", "instance_id": "i"});
    scene.ask(post("/api/v1/register").by(&ada).json(&instance)).await;
    scene.ask(post("/api/v1/instances/tt/i/key").by(&ada)).await;

    scene.note("samples of remote write, of which some are too old, and their topic another's");
    let write = |path: &str, samples: &[_]| {
        let request = post(path).by(&ada).body(remote_write::body(samples));
        remote_write::HEADERS.into_iter().fold(request, |it, (name, value)| it.with(name, value))
    };
    scene.ask(write("/api/v1/write", &[("up", 0, 1.0)])).await;
    let now = NOW.cast_signed();
    scene.ask(write("/prometheus/api/v1/write", &[("up", now, 1.0)])).await;

    scene.note("what is not there");
    scene.ask(get("/api/v2/nothing").by(&ada)).await;
    scene.ask(Request::new("PUT", "/api/v1/publish").by(&ada)).await;
    scene.ask(get("/ws/real-time").by(&ada)).await;
    scene.ask(get("/api/dashboard/ws/real-time").by(&ada)).await;
    let several = scene.user("several", &["tt.**", "uu.**"]);
    let beat = json!({"instance_id": "nobody"});
    scene.ask(post("/api/v1/heartbeat").by(&several).json(&beat)).await;
    let root = scene.admin("root");
    let drain = json!({"node": "nowhere"});
    scene.ask(post("/api/v1/drain").by(&root).json(&drain)).await;
    scene.ask(get("/api/v1/history?topics=a.*&after=1:2").by(&ada)).await;

    scene.note("bodies");
    scene.ask(publish().with("content-type", "text/plain").body("x")).await;
    scene.ask(publish().with("content-type", "text/csv").body("x")).await;
    scene.ask(publish().with("content-encoding", "br").json(&event)).await;
    scene.ask(publish().with("content-encoding", "gzip").json(&event)).await;
    scene.ask(publish().with("content-encoding", "zstd").json(&event)).await;
    scene.ask(publish().body("{\"topic\":\"a.b\",\n \"data\":}")).await;
    scene.ask(publish().body("7")).await;
    scene.ask(publish().body("[]")).await;
    let lines = publish().with("content-type", "application/x-ndjson");
    scene.ask(lines.body("{\"topic\":\"a.b\"}\n{\"topic\":")).await;
    scene.ask(publish().json(&json!([event, event, event, event]))).await;
    scene.ask(publish().json(&json!({"topic": "a.b", "data": "x".repeat(1100)}))).await;
    scene.ask(publish().body(" ".repeat(5000))).await;
    scene.ask(post("/api/v1/session").json(&json!({"code": "x".repeat(2000)}))).await;
    scene.ask(post("/api/v1/session").body("{}")).await;
    scene.ask(post("/api/v1/session").json(&json!({"word": "x"}))).await;
    let bad =
        json!([{"topic": "a..b"}, {"topic": "a.b", "time": "noon"}, {"topic": "a.b", "key": 7}]);
    scene.ask(publish().json(&bad)).await;
    scene.ask(publish().json(&json!({"data": 1}))).await;
    scene.ask(post("/api/v1/publish?ack=never").by(&ada).json(&event)).await;

    scene.note("parameters");
    for path in [
        "/api/v1/history",
        "/api/v1/history?topics=a..b",
        "/api/v1/history?topics=a.*,b.*,b.**",
        "/api/v1/history?topics=a.*&limit=11",
        "/api/v1/history?topics=a.*&limit=x",
        "/api/v1/history?topics=a.*&since=yesterday",
        "/api/v1/history?topics=a.*&after=x",
        "/api/v1/topics?limit=0",
        "/api/v1/instances?state=away",
        "/api/v1/instances?sort=colour",
        "/api/v1/instances?after=x",
        "/api/v1/instances?limit=1001",
        "/api/v1/series?limit=0",
        "/api/v1/series?topic=a..b",
        "/api/v1/series?after=x",
        "/api/v1/series/query",
        "/api/v1/series/query?name=",
        "/api/v1/series/query?name=n&agg=median",
        "/api/v1/series/query?name=n&from=1h&to=2h",
        "/api/v1/series/query?name=n&step=0s",
        "/api/v1/series/query?name=n&step=x",
        "/api/v1/series/query?name=n&labels=x",
        "/api/v1/series/query?name=n&from=noon",
    ] {
        scene.ask(get(path).by(&ada)).await;
    }
    for path in ["/api/v1/connections?limit=0", "/api/v1/connections?after=x"] {
        scene.ask(get(path).by(&root)).await;
    }
    scene.ask(Request::new("DELETE", "/api/v1/drain").by(&root)).await;
    scene.ask(post("/api/v1/drain").by(&root).json(&json!({"node": "all", "fast": true}))).await;
    let voice = scene.user("voice", &["**"]);
    scene.ask(get("/api/dashboard/call-volume?hours=721").by(&voice)).await;
    scene.ask(post("/api/v1/metrics").by(&voice).json(&json!({"metrics": {}}))).await;

    scene.note("no room");
    let topics = json!([{"topic": "b.1"}, {"topic": "b.2"}, {"topic": "b.3"}]);
    scene.ask(publish().json(&topics)).await;
    scene.ask(publish().json(&json!([{"topic": "b.4"}, {"topic": "b.1"}]))).await;
    for id in ["one", "two"] {
        let instance = json!({"app_identifier": "tt", "instance_id": id});
        scene.ask(post("/api/v1/register").by(&several).json(&instance)).await;
    }
    scene.end();
}

#[tokio::test]
async fn who_has_too_much() {
    let settings = "[limits]\nevent = \"1 KiB\"\nbody = \"64 KiB\"\nbodies = \"64 KiB\"\nviews_per_principal = 1\n\
                    connections_per_principal = 1\n[auth]\nwrong_sign_ins = 1\npasses_per_principal = 1\n\
                    [http]\nbody_timeout = \"10s\"\n";
    let mut scene = Scene::start("too_much", settings).await;
    let (ada, bob) = (scene.user("ada", &["a.*"]), scene.user("bob", &["a.*"]));

    scene.note("passes");
    scene.ask(post("/api/v1/tickets").by(&ada)).await;
    scene.ask(post("/api/v1/tickets").by(&ada)).await;

    scene.note("wrong sign-ins");
    for _ in 0..2 {
        scene.ask(post("/api/v1/session").json(&json!({"code": "nonsense"}))).await;
    }

    scene.note("connections and subscriptions");
    let stream = scene.stream("ada", get("/sse/real-time?topics=a.*").by(&ada)).await;
    scene.ask(get("/sse/real-time?topics=a.*").by(&ada)).await;
    drop(stream);
    scene.hub.metric_becomes("pulsehub_connections", 0.0).await;
    let mut socket = scene.connected("bob", &bob).await;
    let subscribe = json!({"type": "subscribe", "id": 2, "sub": "s", "topics": ["a.x"]});
    scene.talk(&mut socket, &subscribe).await;
    drop(socket);
    scene.hub.metric_becomes("pulsehub_connections", 0.0).await;

    scene.note(
        "bytes: a body that does not come to its end holds more than half of what all may hold",
    );
    let mut held = TcpStream::connect(scene.hub.address()).await.unwrap();
    let head = format!(
        "POST /api/v1/publish HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         authorization: Bearer {}\r\ncontent-length: 60000\r\n\r\n",
        ada.token
    );
    held.write_all(head.as_bytes()).await.unwrap();
    held.write_all(&[b' '; 50_000]).await.unwrap();
    let publish = |who| post("/api/v1/publish").by(who).body(" ".repeat(30_000));
    scene.ask_until(publish(&ada), |status, _| status == 429).await;
    scene.ask(publish(&bob)).await;
    drop(held);

    scene.note("subscriptions of one user on all their connections");
    scene.change("[limits]\nviews_per_principal = 1\n[http]\nbody_timeout = \"100ms\"\n").await;
    let ada = scene.user("ada", &["a.*"]);
    let stream = scene.stream("ada", get("/sse/real-time?topics=a.x").by(&ada)).await;
    scene.ask(get("/sse/real-time?topics=a.y").by(&ada)).await;
    drop(stream);

    scene.note("a body that takes too long");
    scene.ask(slow(&ada)).await;

    scene.note("a hub that has heard nothing of itself");
    scene.change("").await;
    let ada = scene.user("ada", &["a.*"]);
    // It publishes once a second, and may do so between the two.
    let (clock, now) = (scene.clock.clone(), std::cell::Cell::new(NOW));
    let is_silent = |status: u16, _: &serde_json::Value| {
        clock.set(now.replace(now.get() + 10_000));
        status == 503
    };
    scene.ask_until(get("/api/v1/status").by(&ada), is_silent).await;
    scene.end();
}

/// A request whose body does not come.
fn slow(user: &super::request::User) -> Request {
    post("/api/v1/publish").by(user).endless()
}
