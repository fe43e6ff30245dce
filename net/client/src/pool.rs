//! The connections of one client: which of them a request takes, and when there is one more.
//!
//! A request takes the open connection with the fewest requests under way. There is one connection for as long as that
//! is enough. Once all that are open are crowded another one is made beside them, and nobody waits for it: a server that
//! does not take it costs nobody an answer. Only a request that finds no connection at all waits for one.
//!
//! Every connection has a socket of its own: a socket's buffers and the kernel's share of the work are not shared then.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quinn::Endpoint;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::Error;
use crate::config::Config;
use crate::link::{Link, endpoint};

/// A connection with so many requests under way is crowded.
const CROWDED: usize = 2;
/// The pause after a connection could not be made beside the others.
const GROW_AGAIN: Duration = Duration::from_secs(1);

/// The connections of one client.
#[derive(Debug)]
pub(crate) struct Pool {
    config: Config,
    places: Box<[Place]>,
    /// Held while a connection is made that requests wait for.
    opening: tokio::sync::Mutex<()>,
    growth: Mutex<Growth>,
}

/// Where one connection is or could be.
#[derive(Debug)]
struct Place {
    endpoint: Endpoint,
    link: Mutex<Option<Arc<Link>>>,
}

/// The making of a connection that nobody waits for.
#[derive(Debug)]
struct Growth {
    /// What is under way; one at a time.
    task: Option<AbortHandle>,
    not_before: Instant,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Place {
    fn open_link(&self) -> Option<Arc<Link>> {
        locked(&self.link).as_ref().filter(|link| link.is_open()).map(Arc::clone)
    }

    fn put(&self, link: Arc<Link>) {
        *locked(&self.link) = Some(link);
    }
}

impl Pool {
    /// A pool without a connection yet.
    pub(crate) fn new(config: Config) -> Result<Arc<Self>, Error> {
        let place = |_| Ok(Place { endpoint: endpoint(&config)?, link: Mutex::new(None) });
        let places: Result<Box<[Place]>, Error> = (0..config.connections_max.max(1)).map(place).collect();
        let growth = Mutex::new(Growth { task: None, not_before: Instant::now() });
        Ok(Arc::new(Self { places: places?, config, opening: Default::default(), growth }))
    }

    /// A connection: an open one, or one that is made now.
    pub(crate) async fn link(self: &Arc<Self>) -> Result<Arc<Link>, Error> {
        if let Some(link) = self.least_used() {
            return Ok(link);
        }
        let _one_at_a_time = self.opening.lock().await;
        if let Some(link) = self.least_used() {
            return Ok(link);
        }
        // At least one place exists.
        let first = &self.places[0];
        let link = Arc::new(Link::open(&first.endpoint, &self.config).await?);
        first.put(Arc::clone(&link));
        Ok(link)
    }

    fn least_used(self: &Arc<Self>) -> Option<Arc<Link>> {
        let mut open = 0;
        let links = self.places.iter().filter_map(Place::open_link).inspect(|_| open += 1);
        let (requests, link) =
            links.map(|link| (link.requests(), link)).min_by_key(|(requests, _)| *requests)?;
        if requests >= CROWDED && open < self.places.len() {
            self.grow();
        }
        Some(link)
    }

    /// Makes one more connection, unless that is under way or has just failed.
    fn grow(self: &Arc<Self>) {
        let mut growth = locked(&self.growth);
        let under_way = growth.task.as_ref().is_some_and(|task| !task.is_finished());
        if under_way || Instant::now() < growth.not_before {
            return;
        }
        let Some(at) = self.places.iter().position(|place| place.open_link().is_none()) else { return };
        let (endpoint, config) = (self.places[at].endpoint.clone(), self.config.clone());
        // Whoever drops the client meanwhile is not kept waiting for by this.
        let pool = Arc::downgrade(self);
        let task = tokio::spawn(async move {
            let opened = tokio::time::timeout(config.deadline, Link::open(&endpoint, &config)).await;
            let Some(pool) = pool.upgrade() else { return };
            pool.grown(at, opened.unwrap_or(Err(Error::Deadline)));
        });
        growth.task = Some(task.abort_handle());
    }

    fn grown(&self, at: usize, opened: Result<Link, Error>) {
        let mut growth = locked(&self.growth);
        if growth.task.take().is_none() {
            return; // closed meanwhile
        }
        match opened {
            Ok(link) => self.places[at].put(Arc::new(link)),
            Err(error) => {
                tracing::debug!(%error, "going on with fewer connections");
                growth.not_before = Instant::now() + GROW_AGAIN;
            }
        }
    }

    /// Ends every connection in order, for as long as `farewell`.
    pub(crate) async fn close(&self, farewell: Duration) {
        if let Some(task) = locked(&self.growth).task.take() {
            task.abort();
        }
        for place in &self.places {
            if let Some(link) = locked(&place.link).take() {
                link.end();
            }
        }
        let idle = async {
            for place in &self.places {
                place.endpoint.wait_idle().await;
            }
        };
        let _ = tokio::time::timeout(farewell, idle).await;
    }
}
