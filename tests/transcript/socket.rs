//! One socket: what is said on it and what comes back.

use serde_json::Value;
use tokio_tungstenite::tungstenite::Message;

use super::{
    request::User,
    scene::{SHOWN, Scene},
};
use crate::support::hub::{Client, PROTOCOL};

/// A socket by the name it has in the script.
pub(super) struct Socket {
    name: &'static str,
    pub(super) client: Client,
}

impl Scene {
    /// A socket that speaks in messages and has said nothing.
    pub(super) async fn socket(&mut self, name: &'static str) -> Socket {
        self.socket_at(name, "/ws/real-time", &[PROTOCOL]).await
    }

    pub(super) async fn socket_at(
        &mut self,
        name: &'static str,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> Socket {
        let client = self.hub.socket(path, headers).await;
        let mut line = format!("{name} opens {path}");
        headers.iter().for_each(|(name, value)| line += &format!(" [{name}: {value}]"));
        let line = self.names.show(&line);
        self.record.add(0, &line);
        let chosen = client.protocol.as_deref().unwrap_or("no subprotocol");
        self.record.add(0, &format!("{name} ← open, {chosen}"));
        Socket { name, client }
    }

    /// A socket that has said `connect`.
    pub(super) async fn connected(&mut self, name: &'static str, user: &User) -> Socket {
        let mut socket = self.socket(name).await;
        let connect = serde_json::json!({"type": "connect", "id": 1, "token": user.token});
        self.say(&mut socket, &connect).await;
        self.hear(&mut socket).await;
        socket
    }

    pub(super) async fn say(&mut self, socket: &mut Socket, message: &Value) {
        self.say_text(socket, &message.to_string()).await;
    }

    pub(super) async fn say_text(&mut self, socket: &mut Socket, text: &str) {
        let shown = if text.len() > SHOWN {
            format!("({} bytes)", text.len())
        } else {
            self.names.show(text)
        };
        self.record.add(0, &format!("{} → {shown}", socket.name));
        socket.client.send_raw(Message::text(text.to_owned())).await;
    }

    /// Says something and hears the answer.
    pub(super) async fn talk(&mut self, socket: &mut Socket, message: &Value) -> Value {
        self.say(socket, message).await;
        self.hear(socket).await
    }

    /// Records the next message; a ping of the hub is answered and passed over.
    pub(super) async fn hear(&mut self, socket: &mut Socket) -> Value {
        self.hear_any(socket, false).await
    }

    /// Records the next ping.
    pub(super) async fn hear_ping(&mut self, socket: &mut Socket) -> Value {
        self.hear_any(socket, true).await
    }

    async fn hear_any(&mut self, socket: &mut Socket, wants_ping: bool) -> Value {
        loop {
            let text = match socket.client.next().await {
                Some(Message::Text(text)) => text.to_string(),
                Some(Message::Ping(_) | Message::Pong(_)) => continue,
                other => panic!("{}: a message was expected, not {other:?}", socket.name),
            };
            let json: Value = serde_json::from_str(&text).unwrap_or_default();
            if json["type"] == "ping" && !wants_ping {
                socket.client.send(serde_json::json!({"type": "pong"})).await;
                continue;
            }
            self.names.learn(&json);
            let shown = self.names.show(&text);
            self.record.add(0, &format!("{} ← {shown}", socket.name));
            return json;
        }
    }

    /// Records what comes before the close, and the close.
    pub(super) async fn hear_close(&mut self, mut socket: Socket) {
        loop {
            match socket.client.next().await {
                Some(Message::Text(text)) => {
                    let shown = self.names.show(&text);
                    self.record.add(0, &format!("{} ← {shown}", socket.name));
                }
                Some(Message::Close(Some(frame))) => {
                    let shown = self.names.show(&frame.reason);
                    let code = u16::from(frame.code);
                    self.record.add(0, &format!("{} ← close {code} {shown}", socket.name));
                    self.record.space();
                    return;
                }
                Some(Message::Ping(_) | Message::Pong(_)) => {}
                other => panic!("{}: a close was expected, not {other:?}", socket.name),
            }
        }
    }
}
