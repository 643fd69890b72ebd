//! Which connections there are, and which of them give way when all places are taken.
//!
//! A connection is busy from its request's head until the answer's last byte was taken by the
//! system. One that is not gives way, the one that did nothing for longest first; else one that
//! has taken nothing of its answer for a minute, which is how a reader would hold on to a place
//! for ever.

use std::io::{IoSlice, Result};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use hyper::body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long a reader may take nothing.
pub(super) const PATIENCE: Duration = Duration::from_mins(1);

/// No request is being handled, and no answer is on its way.
const IDLE: u8 = 0;
/// A request is being handled, or the answer's body is being read.
const SERVING: u8 = 1;
/// The answer is complete, but some of it is still with us.
const SENDING: u8 = 2;
const GIVEN_UP: u8 = 3;

/// All connections.
#[derive(Debug)]
pub(super) struct Places {
    turn: Arc<AtomicU64>,
    taken: Vec<Arc<Place>>,
    began: Instant,
    patience: Duration,
}

/// One connection as the others see it.
#[derive(Debug)]
pub(super) struct Place {
    /// One of the constants above.
    state: AtomicU8,
    /// When it last did something, in turns of all connections.
    last: AtomicU64,
    turn: Arc<AtomicU64>,
    began: Instant,
    /// Since when its peer takes nothing, milliseconds after `began`; 0 when it does.
    stuck: AtomicU64,
    /// Cancelled when it is to end.
    pub(super) given_up: CancellationToken,
}

impl Places {
    /// None yet; a reader may take nothing for `patience`.
    pub(super) fn new(patience: Duration) -> Self {
        Self { turn: Arc::default(), taken: Vec::new(), began: Instant::now(), patience }
    }

    /// One more.
    pub(super) fn take(&mut self) -> Arc<Place> {
        // The connection's task holds the other references.
        self.taken.retain(|place| Arc::strong_count(place) > 1);
        let place = Arc::new(Place {
            state: AtomicU8::new(IDLE),
            last: AtomicU64::new(0),
            turn: Arc::clone(&self.turn),
            began: self.began,
            stuck: AtomicU64::new(0),
            given_up: CancellationToken::new(),
        });
        place.touch();
        self.taken.push(Arc::clone(&place));
        place
    }

    /// Ends the connection that has been idle for longest, or else one whose peer takes nothing, if
    /// there is such a one and none is ending already.
    pub(super) fn free_one(&mut self) {
        self.taken.sort_unstable_by_key(|place| place.last.load(Ordering::Relaxed));
        let live = || self.taken.iter().filter(|place| Arc::strong_count(place) > 1);
        if live().any(|place| place.state.load(Ordering::Acquire) == GIVEN_UP) {
            // Its end is on its way.
            return;
        }
        let idle = live().find(|place| place.change(IDLE, GIVEN_UP));
        let stuck = || live().find(|place| place.is_stuck(self.patience) && place.give_up());
        if let Some(place) = idle.or_else(stuck) {
            tracing::debug!("all connections are taken: one that does nothing is closed");
            place.given_up.cancel();
        }
    }
}

impl Place {
    fn touch(&self) {
        self.last.store(self.turn.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
    }

    fn change(&self, from: u8, to: u8) -> bool {
        self.state.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// False when that was done before.
    fn give_up(&self) -> bool {
        self.state.swap(GIVEN_UP, Ordering::AcqRel) != GIVEN_UP
    }

    /// A request has come in. `None` when the connection was given up: then nothing may be done that
    /// nobody would hear of.
    pub(super) fn serve(self: &Arc<Self>) -> Option<Serving> {
        // The last answer may still be on its way when the next request is there.
        if !self.change(IDLE, SERVING) && !self.change(SENDING, SERVING) {
            return None;
        }
        self.touch();
        Some(Serving(Arc::clone(self)))
    }

    fn millis(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn is_stuck(&self, patience: Duration) -> bool {
        let since = self.stuck.load(Ordering::Relaxed);
        let patience = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
        since != 0 && self.millis().saturating_sub(since) >= patience
    }

    /// The peer took something, or not.
    fn wrote(&self, progress: bool) {
        if progress {
            self.stuck.store(0, Ordering::Relaxed);
        } else if self.stuck.load(Ordering::Relaxed) == 0 {
            self.stuck.store(self.millis().max(1), Ordering::Relaxed);
        }
    }
}

/// A request that is being handled or answered, until it is dropped.
#[derive(Debug)]
pub(super) struct Serving(Arc<Place>);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.touch();
        self.0.change(SERVING, SENDING);
    }
}

/// An answer's body; its connection is busy while it is there.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) body: Body,
    pub(super) serving: Serving,
}

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, axum::Error>>> {
        self.serving.0.touch();
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A connection's stream, which tells its place how the peer reads.
#[derive(Debug)]
pub(super) struct Watched<S> {
    pub(super) stream: S,
    pub(super) place: Arc<Place>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.place.wrote(wrote.is_ready());
        wrote
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.place.wrote(wrote.is_ready());
        wrote
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// hyper flushes us when it holds nothing back itself.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        if flushed.is_ready() {
            self.place.change(SENDING, IDLE);
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
