//! How often something is said in the log.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::DefaultGuard;
use tracing::{Event, Level, Metadata, Subscriber};

/// Counts what this thread says at a level, while it lives.
pub(crate) struct Counted {
    said: Arc<AtomicUsize>,
    _guard: DefaultGuard,
}

impl Counted {
    pub(crate) fn at(level: Level) -> Self {
        let said = Arc::new(AtomicUsize::new(0));
        let counter = Counter { level, said: Arc::clone(&said) };
        Self { said, _guard: tracing::subscriber::set_default(counter) }
    }

    pub(crate) fn said(&self) -> usize {
        self.said.load(Ordering::Relaxed)
    }
}

struct Counter {
    level: Level,
    said: Arc<AtomicUsize>,
}

impl Subscriber for Counter {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == self.level && metadata.is_event()
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, _: &Event<'_>) {
        self.said.fetch_add(1, Ordering::Relaxed);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}
