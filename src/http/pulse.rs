//! What a connection is doing, told by its bytes and its requests: how long it may do nothing, whether the end of what
//! its peer sends is the end of what they want, and how it closes.

use std::{
    future::poll_fn,
    io,
    mem::MaybeUninit,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use http::{Method, Version};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    task::unconstrained,
    time::{Instant, Sleep, sleep},
};

/// Shared by a connection's stream, its requests and its task.
#[derive(Clone)]
pub(super) struct Pulse(Arc<Mutex<PulseState>>);

struct PulseState {
    header_timeout: Duration,
    idle_timeout: Duration,
    /// When it was opened, or when the last answer was done.
    since: Instant,
    /// When the first byte of the next request came.
    head_since: Option<Instant>,
    has_spoken: bool,
    is_h2: bool,
    under_way: usize,
    /// Whether the answer of HTTP/1 is in the buffer whole, and only has to be written.
    is_answered: bool,
    /// Whether a client that sends nothing more still wants the answer.
    outlives_eof: bool,
    /// Whether the peer sends no more, and the connection has not been told.
    holds_eof: bool,
    leaves_body: bool,
    /// Of the task that waits for a lapse.
    waker: Option<Waker>,
}

/// Why a connection must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lapse {
    /// No request came, or not all of its headers.
    Headers,
    /// Nothing is asked of it any more.
    Idle,
}

/// How long a connection may take to end after the order.
const GRACE: Duration = Duration::from_secs(5);

impl Pulse {
    pub(super) fn new(header_timeout: Duration, idle_timeout: Duration) -> Self {
        Self(Arc::new(Mutex::new(PulseState {
            header_timeout,
            idle_timeout,
            since: Instant::now(),
            head_since: None,
            has_spoken: false,
            is_h2: false,
            under_way: 0,
            is_answered: false,
            outlives_eof: false,
            holds_eof: false,
            leaves_body: false,
            waker: None,
        })))
    }

    /// Notes that a request has come; what is returned goes with its answer.
    pub(super) fn begin(&self, method: &Method, version: Version) -> UnderWay {
        let mut state = self.0.lock();
        state.has_spoken = true;
        state.is_h2 = version == Version::HTTP_2;
        state.under_way += 1;
        state.head_since = None;
        state.is_answered = false;
        // Who only asked and has left must not keep the hub busy; what was sent to be kept is kept, and they may listen.
        state.outlives_eof = !state.is_h2 && !method.is_safe();
        UnderWay(self.clone())
    }

    /// Resolves when the connection has to end; to be asked after its bytes were looked at.
    pub(super) async fn lapse(&self) -> Lapse {
        let mut timer = pin!(sleep(Duration::ZERO));
        // However many bytes came in this turn.
        unconstrained(poll_fn(|cx| {
            let mut state = self.0.lock();
            if !state.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                state.waker = Some(cx.waker().clone());
            }
            let Some((deadline, lapse)) = state.deadline() else { return Poll::Pending };
            drop(state);
            loop {
                // Each request puts the deadline off, and setting a timer costs: it runs out first, and is set again then.
                if deadline < timer.deadline() {
                    timer.as_mut().reset(deadline);
                }
                ready!(timer.as_mut().poll(cx));
                if timer.deadline() >= deadline {
                    return Poll::Ready(lapse);
                }
                timer.as_mut().reset(deadline);
            }
        }))
        .await
    }

    /// The connection was told to end: what is under way may, the rest has a moment.
    pub(super) fn end(&self) {
        let mut state = self.0.lock();
        state.idle_timeout = GRACE;
        state.since = Instant::now();
    }

    /// Notes that the body of the request under way will not be read to its end.
    pub(super) fn leave_body(&self) {
        self.0.lock().leaves_body = true;
    }

    /// Whether the peer sends no more.
    pub(super) fn holds_eof(&self) -> bool {
        self.0.lock().holds_eof
    }

    fn heard(&self) {
        let mut state = self.0.lock();
        if state.under_way == 0 && !state.is_h2 {
            state.head_since.get_or_insert_with(Instant::now);
        }
    }

    /// Whether the connection may be told that its peer sends no more.
    fn may_end(&self) -> bool {
        let mut state = self.0.lock();
        state.holds_eof = state.outlives_eof;
        !state.holds_eof
    }

    /// Everything so far was written; tells whether an end of file was held back until now.
    fn flushed(&self) -> bool {
        let mut state = self.0.lock();
        if !state.is_answered {
            return false;
        }
        state.is_answered = false;
        state.under_way = 0;
        state.since = Instant::now();
        state.outlives_eof = false;
        std::mem::take(&mut state.holds_eof)
    }
}

impl PulseState {
    fn deadline(&self) -> Option<(Instant, Lapse)> {
        if self.under_way > 0 {
            return None;
        }
        if !self.has_spoken {
            return Some((self.since + self.header_timeout, Lapse::Headers));
        }
        let idle = (self.since + self.idle_timeout, Lapse::Idle);
        let head = self.head_since.map(|since| (since + self.header_timeout, Lapse::Headers));
        Some(head.unwrap_or(idle))
    }
}

/// A request that is being answered.
pub(super) struct UnderWay(Pulse);

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut state = self.0.0.lock();
        if !state.is_h2 {
            state.is_answered = true; // the task of the connection writes it now
            return;
        }
        state.under_way = state.under_way.saturating_sub(1);
        state.since = Instant::now();
        if let Some(waker) = &state.waker {
            waker.wake_by_ref(); // an HTTP/2 stream has a task of its own
        }
    }
}

/// A stream that reports what it reads, and reads only a limited amount in a turn. So a client that sends without end,
/// be it HTTP/2 pings, empty frames or chunks of one byte, delays neither other clients nor the timers. HTTP/2 keeps
/// reading while bytes come, and 17 of them are a ping to answer.
///
/// It ends in the way TCP needs, so that the last bytes are not lost: what still comes is read and discarded, up to a
/// bound, because closing with unread bytes resets the connection (RFC 9112 section 9.6).
pub(super) struct Tapped<S> {
    stream: S,
    pulse: Pulse,
    /// Bytes that may still be read in this turn.
    left: usize,
    lingering: Option<Lingering>,
}

/// Bytes read before others get their turn.
const TURN: usize = 64 << 10;

struct Lingering {
    left: usize,
    timer: Pin<Box<Sleep>>,
}

/// How much is read of a body that is refused, so that its sender gets to read the refusal.
const LEFT_BODY: (usize, Duration) = (16 << 20, Duration::from_secs(5));

/// The same where nothing more is expected.
const LEFT_WORDS: (usize, Duration) = (64 << 10, Duration::from_secs(1));

impl<S> Tapped<S> {
    pub(super) fn new(stream: S, pulse: Pulse) -> Self {
        Self { stream, pulse, left: TURN, lingering: None }
    }

    pub(super) fn into_inner(self) -> S {
        self.stream
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Tapped<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.pulse.holds_eof() {
            return Poll::Pending; // the flush of the answer wakes it
        }
        if self.left == 0 {
            self.left = TURN;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        let Poll::Ready(read) = Pin::new(&mut self.stream).poll_read(cx, buffer) else {
            self.left = TURN;
            return Poll::Pending;
        };
        read?;
        let count = buffer.filled().len() - before;
        self.left = self.left.saturating_sub(count);
        if count > 0 {
            self.pulse.heard();
        } else if !self.pulse.may_end() {
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Tapped<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        if self.pulse.flushed() {
            cx.waker().wake_by_ref();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.lingering.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
            let (left, patience) =
                if this.pulse.0.lock().leaves_body { LEFT_BODY } else { LEFT_WORDS };
            this.lingering = Some(Lingering { left, timer: Box::pin(sleep(patience)) });
        }
        let Some(lingering) = &mut this.lingering else { return Poll::Ready(Ok(())) };
        let mut buffer = [MaybeUninit::uninit(); 8 * 1024];
        while lingering.left > 0 {
            let mut buffer = ReadBuf::uninit(&mut buffer);
            match Pin::new(&mut this.stream).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    lingering.left = lingering.left.saturating_sub(buffer.filled().len());
                }
                Poll::Ready(_) => return Poll::Ready(Ok(())), // they have closed as well
                Poll::Pending => {
                    return pin!(unconstrained(lingering.timer.as_mut())).poll(cx).map(Ok);
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::coop;

    use super::*;

    #[tokio::test]
    async fn who_sends_without_end_let_nobody_else_go_on() {
        let pulse = Pulse::new(Duration::MAX / 4, Duration::MAX / 4);
        let mut stream = Tapped::new(tokio::io::repeat(0), pulse);
        for _ in 0..3 {
            let read = poll_fn(|cx| {
                let (mut read, mut bytes) = (0, [0; 4096]);
                loop {
                    let mut buffer = ReadBuf::new(&mut bytes);
                    match Pin::new(&mut stream).poll_read(cx, &mut buffer) {
                        Poll::Ready(ended) => ended.unwrap(),
                        Poll::Pending => return Poll::Ready(read),
                    }
                    read += buffer.filled().len();
                }
            });
            assert_eq!(read.await, TURN);
        }
    }

    #[tokio::test]
    async fn a_turn_that_was_used_up_kept_the_timer_from_running() {
        let pulse = Pulse::new(Duration::from_millis(1), Duration::ZERO);
        let mut lapse = pin!(pulse.lapse());
        let busy = poll_fn(|cx| {
            while let Poll::Ready(unit) = coop::poll_proceed(cx) {
                unit.made_progress();
            }
            lapse.as_mut().poll(cx)
        });
        let lapse = tokio::time::timeout(Duration::from_secs(10), busy).await;
        assert_eq!(lapse.expect("it never ends"), Lapse::Headers);
    }
}
