//! An answer that is being sent: what ends it if its reader stops reading, or if it may not continue.
//!
//! A body is polled only when its reader has read what came before. If a client reads nothing, its body is never polled
//! again. So the task that writes the answer also watches for its end.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::body::{Body, Bytes};
use http::{Response, Version};
use http_body::{Frame, SizeHint};
use hyper::rt::Executor;
use parking_lot::Mutex;
use tokio::{
    task::unconstrained,
    time::{Sleep, sleep},
};

use super::{connection_slots::Visit, pulse::UnderWay};
use crate::telemetry::{Limit, Telemetry};

/// Resolves when an answer must end, whether or not it is being read. Among a response's extensions.
#[derive(Clone)]
pub(super) struct EndWhen(Arc<Mutex<Option<Until>>>);

type Until = Pin<Box<dyn Future<Output = ()> + Send>>;

impl EndWhen {
    /// Ends the answer a moment after `until`, in which it may end by itself.
    pub(super) fn new(until: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(Arc::new(Mutex::new(Some(Box::pin(until)))))
    }
}

/// The moment in which an answer may say its last words.
const LAST_WORDS: Duration = Duration::from_secs(1);

tokio::task_local! {
    /// The answer that this task writes: an HTTP/1 connection has one after the other, an HTTP/2 stream has its own.
    static ANSWERING: Answering;
}

/// What a task writes at present.
#[derive(Clone)]
pub(super) struct Answering(Arc<AnsweringInner>);

struct AnsweringInner {
    /// How long a piece may wait to be taken.
    patience: Duration,
    telemetry: Telemetry,
    /// Locked for one look or note.
    state: Mutex<AnsweringState>,
}

#[derive(Default)]
struct AnsweringState {
    /// Whether the reader has yet to take what the body gave.
    owes: bool,
    /// Runs while it does.
    stall: Option<Pin<Box<Sleep>>>,
    until: Option<Until>,
    last_words: Option<Pin<Box<Sleep>>>,
}

impl Answering {
    /// Nothing yet.
    pub(super) fn new(patience: Duration, telemetry: Telemetry) -> Self {
        Self(Arc::new(AnsweringInner { patience, telemetry, state: Mutex::default() }))
    }

    /// Runs what writes the answers.
    pub(super) async fn during<F: Future>(&self, mut writing: Pin<&mut F>) -> F::Output {
        poll_fn(|cx| ANSWERING.sync_scope(self.clone(), || writing.as_mut().poll(cx))).await
    }

    /// Resolves when the answer has to be cut off.
    pub(super) async fn cut_off(&self) {
        // However many bytes came in this turn.
        unconstrained(poll_fn(|cx| self.poll_cut_off(cx))).await;
    }

    fn poll_cut_off(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.0.state.lock();
        if let Some(until) = &mut state.until
            && until.as_mut().poll(cx).is_ready()
        {
            state.until = None;
            state.last_words = Some(Box::pin(sleep(LAST_WORDS)));
        }
        if let Some(last_words) = &mut state.last_words
            && last_words.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(());
        }
        if !state.owes {
            state.stall = None;
            return Poll::Pending;
        }
        let patience = self.0.patience;
        let stall = state.stall.get_or_insert_with(|| Box::pin(sleep(patience)));
        if stall.as_mut().poll(cx).is_ready() {
            self.0.telemetry.hit(Limit::WriteTimeout);
            return Poll::Ready(());
        }
        Poll::Pending
    }

    /// The body gave something, or has nothing to give.
    fn note(&self, owes: bool) {
        let mut state = self.0.state.lock();
        state.owes = owes;
        state.stall = None;
    }
}

/// The answer as it goes out: in pieces, watched over. To be called on the task that writes it.
///
/// `under_way` goes with it to its end.
pub(super) fn watch(
    response: Response<Body>,
    version: Version,
    under_way: (UnderWay, Option<Arc<Visit>>),
) -> Response<Body> {
    let Ok(answering) = ANSWERING.try_with(Clone::clone) else { return response };
    let (mut parts, body) = response.into_parts();
    let until = parts.extensions.remove::<EndWhen>();
    // Also the head alone of an answer that has a body: then nothing is left that could be cut off.
    if http_body::Body::is_end_stream(&body) {
        return Response::from_parts(parts, body);
    }
    if let Some(EndWhen(until)) = until {
        answering.0.state.lock().until = until.lock().take();
    }
    let is_h2 = version == Version::HTTP_2;
    let watched = Watched { body, rest: Bytes::new(), is_h2, answering, _under_way: under_way };
    Response::from_parts(parts, Body::new(watched))
}

/// Bytes that are handed out at a time, so that the body is there until all but that much has been taken.
const PIECE: usize = 4 * 1024;

struct Watched {
    body: Body,
    /// Of what the body gave, what was not handed out.
    rest: Bytes,
    is_h2: bool,
    answering: Answering,
    _under_way: (UnderWay, Option<Arc<Visit>>),
}

impl Watched {
    fn piece(&mut self) -> Bytes {
        let mut length = self.rest.len().min(PIECE);
        // HTTP/2 counts as gone what fits into no window. It waits for room before each piece, though: the last byte
        // goes alone, and so the others went before it.
        if self.is_h2 && length == self.rest.len() && length > 256 && self.body_is_over() {
            length -= 1;
        }
        self.rest.split_to(length)
    }

    fn body_is_over(&self) -> bool {
        http_body::Body::is_end_stream(&self.body)
    }
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        if this.rest.is_empty() {
            match Pin::new(&mut this.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => this.rest = data,
                    Err(frame) => return Poll::Ready(Some(Ok(frame))),
                },
                other => {
                    this.answering.note(false);
                    return other;
                }
            }
        }
        this.answering.note(true);
        Poll::Ready(Some(Ok(Frame::data(this.piece()))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body_is_over()
    }

    fn size_hint(&self) -> SizeHint {
        let (rest, hint) = (self.rest.len() as u64, self.body.size_hint());
        let mut whole = SizeHint::new();
        whole.set_lower(hint.lower() + rest);
        if let Some(upper) = hint.upper() {
            whole.set_upper(upper + rest);
        }
        whole
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let mut state = self.answering.0.state.lock();
        *state = AnsweringState::default();
    }
}

/// Runs the streams of HTTP/2 connections, each until its answer has to be cut off; the others continue.
#[derive(Clone)]
pub(super) struct Streams {
    /// How long a piece may wait to be taken.
    pub(super) patience: Duration,
    /// Where it is counted.
    pub(super) telemetry: Telemetry,
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, stream: F) {
        let answering = Answering::new(self.patience, self.telemetry.clone());
        tokio::spawn(async move {
            let stream = pin!(stream);
            tokio::select! {
                biased;
                () = answering.during(stream) => {}
                () = answering.cut_off() => {}
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use http::Method;
    use http_body_util::BodyExt as _;

    use super::{super::pulse::Pulse, *};

    #[tokio::test]
    async fn an_answer_goes_out_in_pieces_so_that_it_is_there_while_it_is_taken() {
        let patience = Duration::from_secs(60);
        let whole: Vec<u8> = (0..10_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        for (version, last) in [(Version::HTTP_11, 10_000 - 2 * PIECE), (Version::HTTP_2, 1)] {
            let pulse = Pulse::new(patience, patience);
            let under_way = pulse.begin(&Method::GET, version);
            let writing = async {
                let answer = Response::new(Body::from(whole.clone()));
                let mut body = watch(answer, version, (under_way, None)).into_body();
                let (mut taken, mut sizes) = (Vec::new(), Vec::new());
                while let Some(frame) = body.frame().await {
                    let data = frame.unwrap().into_data().unwrap();
                    sizes.push(data.len());
                    taken.extend_from_slice(&data);
                }
                assert_eq!(taken, whole);
                assert!(sizes.iter().all(|size| *size <= PIECE), "{sizes:?}");
                assert_eq!(sizes.last(), Some(&last), "{sizes:?}");
            };
            Answering::new(patience, Telemetry::new()).during(pin!(writing)).await;
        }
    }
}
