//! Metrics in OpenMetrics text, with the names and labels of Istio.

pub mod end;
pub mod process;
pub mod traffic;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio::sync::OwnedMutexGuard;
use tokio::time::{Instant, sleep, sleep_until};

use crate::http::{Answer, Routes};

/// How often series of what is gone are looked for.
const EXPIRE: Duration = Duration::from_secs(60);

/// Has series of what is gone go too, as long as it runs.
pub async fn expire(expire: impl Fn()) {
    loop {
        sleep(EXPIRE).await;
        expire();
    }
}

/// Between the beginnings of two texts: anybody may scrape, and a large one takes a while to make.
const INTERVAL: Duration = Duration::from_secs(1);
/// Texts that there are at once. Who reads slowly holds one for as long as a connection may last; meanwhile the others are
/// told what he is.
const TEXTS: usize = 4;

/// All metrics of the process. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    scraped: Arc<tokio::sync::Mutex<Scraped>>,
}

/// What was made for who scrapes.
#[derive(Debug, Default)]
struct Scraped {
    /// When the newest text was begun.
    began: Option<Instant>,
    /// Those that somebody may still read, the newest last.
    texts: Vec<Bytes>,
}

impl Scraped {
    /// A text for who asked then, if it need not be made: one that was begun later, or the newest of as many as there may be.
    fn ready(&mut self, asked: Instant) -> Option<Bytes> {
        if self.began.is_none_or(|began| began < asked) {
            self.texts.retain(|text| !text.is_unique());
            if self.texts.len() < TEXTS {
                return None;
            }
        }
        self.texts.last().cloned()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let registry = Arc::new(Mutex::new(Registry::default()));
        let metrics = Self { registry, scraped: Arc::default() };
        metrics.register(|registry| registry.register_collector(Box::new(process::Process)));
        metrics
    }
}

impl Metrics {
    /// Registers metrics.
    pub fn register<T>(&self, register: impl FnOnce(&mut Registry) -> T) -> T {
        register(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Registers metrics whose names begin with `istio_`.
    pub fn register_istio<T>(&self, register: impl FnOnce(&mut Registry) -> T) -> T {
        self.register(|registry| register(registry.sub_registry_with_prefix("istio")))
    }

    /// What is scraped, made now.
    pub fn text(&self) -> String {
        let mut text = String::new();
        match encode(&mut text, &self.registry.lock().unwrap_or_else(PoisonError::into_inner)) {
            Ok(()) => text,
            // Formatting into a string fails only if a collector does.
            Err(error) => format!("# a collector failed: {error}\n# EOF\n"),
        }
    }

    /// `/metrics` and `/stats/prometheus`.
    pub fn routes(&self, routes: Routes) -> Routes {
        let (one, other) = (self.clone(), self.clone());
        routes
            .on(Method::GET, "/metrics", move |_| {
                let metrics = one.clone();
                async move { metrics.answer().await }
            })
            .on(Method::GET, "/stats/prometheus", move |_| {
                let metrics = other.clone();
                async move { metrics.answer().await }
            })
    }

    async fn answer(&self) -> Answer {
        let content_type = "application/openmetrics-text;charset=utf-8;version=1.0.0";
        match self.scrape().await {
            Some(body) => Answer { status: http::StatusCode::OK, content_type, body },
            None => Answer::text(500, "the metrics could not be written; the log says why\n"),
        }
    }

    /// What is scraped, shared by all who ask until it is begun: of however many there are, one at a time is made, none
    /// within a second of another, and not on the thread that asks, which may carry traffic.
    async fn scrape(&self) -> Option<Bytes> {
        let asked = Instant::now();
        let mut scraped = self.scraped.clone().lock_owned().await;
        if let Some(text) = scraped.ready(asked) {
            return Some(text);
        }
        if let Some(began) = scraped.began {
            sleep_until(began + INTERVAL).await;
        }
        // The lock goes along: who asks and leaves must not have another one begun beside it.
        let metrics = self.clone();
        tokio::task::spawn_blocking(move || metrics.make(scraped)).await.ok()
    }

    fn make(&self, mut scraped: OwnedMutexGuard<Scraped>) -> Bytes {
        scraped.began = Some(Instant::now());
        let text = Bytes::from(self.text());
        scraped.texts.push(text.clone());
        text
    }
}

#[cfg(test)]
mod tests {
    use std::fmt;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use prometheus_client::collector::Collector;
    use prometheus_client::encoding::DescriptorEncoder;

    use super::*;

    /// Counts how often it is written.
    #[derive(Debug, Default)]
    struct Counted(Arc<AtomicUsize>);

    impl Collector for Counted {
        fn encode(&self, _: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }
    }

    fn counted() -> (Metrics, Arc<AtomicUsize>) {
        let (metrics, made) = (Metrics::default(), Arc::<AtomicUsize>::default());
        metrics.register(|registry| registry.register_collector(Box::new(Counted(made.clone()))));
        (metrics, made)
    }

    #[tokio::test]
    async fn who_scrapes_at_once_shares_one_text_that_is_not_older_than_the_question() {
        let (metrics, made) = counted();
        let begun = Instant::now();
        let first = metrics.scrape().await.unwrap();
        assert!(begun.elapsed() < INTERVAL, "nobody waits for the first");
        let asking: Vec<_> = (0..100)
            .map(|_| {
                tokio::spawn({
                    let metrics = metrics.clone();
                    async move { metrics.scrape().await.unwrap() }
                })
            })
            .collect();
        let mut texts = Vec::new();
        for one in asking {
            texts.push(one.await.unwrap());
        }
        assert_eq!(made.load(Ordering::Relaxed), 2, "none of them saw what was before it asked");
        assert!(
            texts.iter().all(|text| text.as_ptr() == texts[0].as_ptr())
                && texts[0].as_ptr() != first.as_ptr()
        );
        assert!(begun.elapsed() >= INTERVAL, "{:?}", begun.elapsed());
    }

    #[test]
    fn who_reads_slowly_holds_few_texts() {
        let mut scraped = Scraped::default();
        let now = Instant::now();
        let mut held = Vec::new();
        for number in 0..TEXTS {
            assert_eq!(scraped.ready(now), None);
            let text = Bytes::from(vec![b'x'; 100 + number]);
            scraped.texts.push(text.clone());
            held.push(text);
        }
        assert_eq!(scraped.ready(now), held.last().cloned(), "no more are made");
        held.remove(1);
        assert_eq!(scraped.ready(now), None, "one was read");
        assert_eq!(scraped.texts.len(), TEXTS - 1);
        // What was begun later is good enough, also where nobody else reads it.
        held.clear();
        scraped.began = Some(now + INTERVAL);
        assert!(scraped.ready(now).is_some());
    }
}
