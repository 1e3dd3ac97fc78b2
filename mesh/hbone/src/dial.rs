//! Dials that all who want them take part in, for pools of one thread: one at a time for what is shared, and who waits for
//! it is told what it came to.

use std::cell::OnceCell;
use std::future::Future;
use std::rc::{Rc, Weak};

use tokio::sync::Mutex;

/// The place of a dial: at most one is under way. `E` is what a dial fails with.
#[derive(Debug)]
pub struct Dialing<E>(Weak<Dial<E>>);

/// A dial that all who want it take part in, each in its turn: the first makes it, and the others find what it came to.
/// Who gives up leaves it to the one that has waited longest, not to whoever comes first: that could be he again.
#[derive(Debug)]
pub struct Dial<E> {
    turn: Mutex<()>,
    /// What it came to: why it failed, or nothing.
    over: OnceCell<Option<E>>,
}

impl<E> Default for Dialing<E> {
    fn default() -> Self {
        Self(Weak::new())
    }
}

impl<E> Dialing<E> {
    /// Whether one is under way that nobody has come to the end of; not where all who took part have given up.
    pub fn is_under_way(&self) -> bool {
        self.under_way().is_some()
    }

    /// The one under way, or else a new one.
    pub fn join(&mut self) -> Rc<Dial<E>> {
        self.under_way().unwrap_or_else(|| {
            let dial = Rc::new(Dial { turn: Mutex::new(()), over: OnceCell::new() });
            self.0 = Rc::downgrade(&dial);
            dial
        })
    }

    fn under_way(&self) -> Option<Rc<Dial<E>>> {
        self.0.upgrade().filter(|dial| dial.over.get().is_none())
    }
}

impl<E: Clone> Dial<E> {
    /// Waits for the turn, and dials: what came of it, or nothing where another has done it meanwhile.
    ///
    /// # Errors
    /// The dial's own error, cloned to those who waited for it.
    pub async fn take_part<T, F: Future<Output = Result<T, E>>>(
        &self,
        dial: impl FnOnce() -> F,
    ) -> Result<Option<T>, E> {
        let _turn = self.turn.lock().await;
        if let Some(failed) = self.over.get() {
            return failed.clone().map_or(Ok(None), Err);
        }
        let result = dial().await;
        // Only who has the turn says so, and only once.
        let _ = self.over.set(result.as_ref().err().cloned());
        result.map(Some)
    }
}

#[cfg(test)]
mod tests {
    use std::future::{Ready, pending, ready};
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn poll<T>(future: Pin<&mut impl Future<Output = T>>) -> Option<T> {
        match future.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(result) => Some(result),
            Poll::Pending => None,
        }
    }

    #[test]
    fn all_who_take_part_are_told_what_one_dial_came_to() {
        for (came_to, told) in [(Ok(7), Ok(None)), (Err("down"), Err("down"))] {
            let mut dialing = Dialing::default();
            let (first, second, third) = (dialing.join(), dialing.join(), dialing.join());
            let mut gives_up = Box::pin(first.take_part(pending::<Result<u8, &str>>));
            let mut waits = Box::pin(second.take_part(|| ready(came_to)));
            let mut is_told = Box::pin(third.take_part(|| -> Ready<Result<u8, _>> { unreachable!() }));
            assert_eq!(poll(gives_up.as_mut()), None);
            assert_eq!((poll(waits.as_mut()), poll(is_told.as_mut())), (None, None));
            drop(gives_up);
            assert!(dialing.is_under_way());
            assert_eq!(poll(waits.as_mut()), Some(came_to.map(Some)));
            assert!(!dialing.is_under_way());
            assert_eq!(poll(is_told.as_mut()), Some(told));
            // What is over is no news to who comes later.
            assert!(!Rc::ptr_eq(&dialing.join(), &third));
        }
    }
}
