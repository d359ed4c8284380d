//! A conversation without what carries its bytes.

use std::{
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use futures_util::Stream as _;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    auth::{CredentialId, Principal},
    connections::Order,
    event::PublisherName,
    grants::Grants,
    http::{
        connection_slots::ConnectionSlots,
        conversation::{Acted, Conversation},
        sse,
    },
};

async fn stream(server: &Server, slots: &ConnectionSlots) -> Pin<Box<sse::EventStream>> {
    let slot = Arc::new(slots.take(None).unwrap());
    let from = server::ClientConnection { client: ([127, 0, 0, 1], 9).into(), slot, visit: None };
    let mut request = request("GET", "/sse/real-time?topics=a.*").body(Body::empty()).unwrap();
    request.extensions_mut().insert(from);
    Box::pin(sse::open(&server.state, request).await.ok().unwrap())
}

/// What comes next, if there is something now.
fn next(stream: &mut Pin<Box<sse::EventStream>>) -> Option<Option<String>> {
    match stream.as_mut().poll_next(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(next) => {
            Some(next.map(|bytes| String::from_utf8(bytes.unwrap().to_vec()).unwrap()))
        }
        Poll::Pending => None,
    }
}

async fn told(order: Order) -> Vec<Option<String>> {
    let server = Server::new();
    let (slots, stop) = (ConnectionSlots::new(80, 80, Telemetry::new()), CancellationToken::new());
    tokio::spawn(server.state.hub.clone().run(stop.clone()));
    let (mut reader, mut witness) = (stream(&server, &slots).await, stream(&server, &slots).await);
    for n in 0..10 {
        assert_eq!(server.publish(format!(r#"{{"topic":"a.b","data":{n}}}"#)).await.status, 200);
    }
    let all = async {
        let mut heard = String::new();
        while !heard.contains(r#""data":9"#) {
            match next(&mut witness) {
                Some(text) => heard.push_str(&text.unwrap()),
                None => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), all).await.unwrap();
    let begun = next(&mut reader).unwrap().unwrap();
    assert!(begun.starts_with("event: hub.position\n"), "{begun}");
    assert!(next(&mut reader).unwrap().unwrap().contains(r#""data":0"#));
    let mut ended = Box::pin(reader.ended());
    server.state.terms.connections.tell_all(|| order);
    let mut rest = vec![next(&mut reader).unwrap()];
    let is_over = ended.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(is_over.is_ready(), "a reader that stalls now stays");
    while rest.last().is_some_and(Option::is_some) {
        rest.push(next(&mut reader).unwrap());
    }
    stop.cancel();
    rest
}

#[tokio::test]
async fn a_stream_that_was_told_to_end_went_on_with_the_events_that_waited() {
    assert_eq!(told(Order::Revoked).await, [None]);
    let rest = told(Order::Reconnect { after_ms: 1234 }).await;
    let goodbye = "event: hub.reconnect\ndata: {\"after_ms\":1234}\nretry: 1234\n\n";
    assert_eq!(rest, [Some(goodbye.to_owned()), None]);
}

#[tokio::test]
async fn a_conversation_that_waited_for_work_was_busy_with_what_is_to_be_done_next() {
    let server = Server::new();
    let principal = Principal {
        name: "ada".into(),
        publisher: PublisherName::anonymous(),
        grants: Grants { subscribe: vec![TopicPattern::parse("a.*").unwrap()], publish: vec![] },
        admin: false,
        expires: None,
        credential: CredentialId::Token,
    };
    let (client, principal) = (([127, 0, 0, 1], 9).into(), Some(Arc::new(principal)));
    let mut conversation = Conversation::new(server.state.clone(), client, principal, None);
    let cx = &mut Context::from_waker(Waker::noop());
    let two = r#"[{"sub":"one","topics":["a.*"]},{"sub":"two","topics":["a.b"]}]"#;
    conversation.text(&format!(r#"{{"type":"connect","id":1,"subscribe":{two}}}"#));
    while !conversation.is_waiting() {
        assert_ne!(conversation.act(cx), Acted::Nothing);
    }
    assert!(conversation.outbox.pop().is_some(), "it is connected");
    assert!(!conversation.fill(cx), "the second subscription waits for the first");
    let mut said = String::new();
    let both = async {
        while said.matches(r#""type":"subscribed""#).count() < 2 {
            if conversation.act(cx) == Acted::Nothing {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            while let Some(frame) = conversation.outbox.pop() {
                said.push_str(&String::from_utf8_lossy(&frame));
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), both).await.unwrap();
}
