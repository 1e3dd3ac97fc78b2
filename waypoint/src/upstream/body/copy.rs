//! A request's body for a copy of the request: what has been read for the original, as far as the copy keeps up.

use std::cell::RefCell;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::HeaderMap;
use hyper::body::{Body as _, Frame};

use super::{BodyError, SharedSource, Source};

/// Bytes that a copy may be behind, before it is given up: the original does not wait for it.
const BEHIND: usize = 64 << 10;

/// What is on its way from an original to a copy.
#[derive(Debug, Default)]
struct Behind {
    /// Copied too, as what is kept for another try is.
    data: Vec<u8>,
    trailers: Option<HeaderMap>,
    end: Option<End>,
    waker: Option<Waker>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// All is there.
    Whole,
    /// The original ended before its body, or the copy did not keep up.
    Broken,
}

/// The copies of a body, as its source knows them.
#[derive(Debug, Default)]
pub(super) struct Copies(Vec<Weak<RefCell<Behind>>>);

/// The body of a copy.
#[derive(Debug)]
pub(crate) struct Copied(Rc<RefCell<Behind>>);

impl Copies {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Something has been read for the original.
    pub(super) fn see(&self, frame: &Frame<Bytes>) {
        self.each(|behind| {
            if let Some(trailers) = frame.trailers_ref() {
                behind.trailers = Some(trailers.clone());
            } else if let Some(data) = frame.data_ref() {
                behind.push(data);
            }
        });
    }

    /// Nothing more comes.
    pub(super) fn end(&self, whole: bool) {
        self.each(|behind| {
            behind.end.get_or_insert(if whole { End::Whole } else { End::Broken });
        });
    }

    fn each(&self, change: impl Fn(&mut Behind)) {
        for behind in self.0.iter().filter_map(Weak::upgrade) {
            let waker = {
                let mut behind = behind.borrow_mut();
                change(&mut behind);
                behind.waker.take()
            };
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
}

impl Behind {
    fn push(&mut self, data: &Bytes) {
        if self.end.is_some() {
            return;
        }
        if self.data.len() + data.len() > BEHIND {
            self.end = Some(End::Broken);
            self.data = Vec::new();
        } else {
            self.data.extend_from_slice(data);
        }
    }
}

impl Copied {
    /// A further reader of a body of which nothing has been read yet.
    pub(super) fn of(source: &SharedSource) -> Self {
        let source = &mut *source.borrow_mut();
        let behind = Rc::new(RefCell::new(Behind::default()));
        source.copies.0.push(Rc::downgrade(&behind));
        source.tell_end();
        Self(behind)
    }

    pub(super) fn poll_frame(&self, cx: &Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let behind = &mut *self.0.borrow_mut();
        if !behind.data.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut behind.data).into()))));
        }
        match behind.end {
            Some(End::Broken) => Poll::Ready(Some(Err(BodyError::Behind))),
            Some(End::Whole) => {
                Poll::Ready(behind.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))))
            }
            None => {
                behind.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    pub(super) fn is_end_stream(&self) -> bool {
        let behind = self.0.borrow();
        behind.end == Some(End::Whole) && behind.data.is_empty() && behind.trailers.is_none()
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.copies.end(false);
    }
}

impl Source {
    /// Tells the copies when all has been read.
    pub(super) fn tell_end(&self) {
        if !self.copies.is_empty() && (self.ended || self.inner.is_end_stream()) {
            self.copies.end(true);
        }
    }
}
