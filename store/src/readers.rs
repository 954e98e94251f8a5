//! Connections that read beside the writer: a few, so that one long search holds nobody up, and whoever comes then waits without
//! a thread.

use crate::OpenError;
use crate::schema::open_reader;
use crate::view::Sql;
use rusqlite::Connection;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

/// How many read at a time.
const CONNECTIONS: u32 = 4;
/// How many of them may be at something long, so that a look at one record always finds a place.
const LONG: usize = 3;

/// How much a read looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// One record.
    Short,
    /// A page of a search.
    Long,
}

/// Why nothing was read.
#[derive(Debug)]
pub enum NotRead {
    Closed,
    Failed(rusqlite::Error),
    Panicked,
}

impl std::fmt::Display for NotRead {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            NotRead::Closed => f.write_str("the store is closed"),
            NotRead::Failed(e) => e.fmt(f),
            NotRead::Panicked => f.write_str("the read has panicked"),
        }
    }
}

/// The connections. Reads never wait for the writer: each sees what was on disk when it began.
pub struct Readers {
    idle: Mutex<Vec<Connection>>,
    places: Arc<Semaphore>,
    long: Arc<Semaphore>,
}

impl Readers {
    /// Opens them all. Blocks.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let idle = (0..CONNECTIONS).map(|_| open_reader(path)).collect::<Result<_, _>>()?;
        let places = Arc::new(Semaphore::new(CONNECTIONS as usize));
        Ok(Readers { idle: Mutex::new(idle), places, long: Arc::new(Semaphore::new(LONG)) })
    }

    /// Reads off the async threads. A caller that goes away leaves the connection to the next.
    pub async fn read<T: Send + 'static>(
        self: Arc<Self>,
        length: Length,
        read: impl FnOnce(&Connection) -> Sql<T> + Send + 'static,
    ) -> Result<T, NotRead> {
        let place = |of: &Arc<Semaphore>| of.clone().acquire_owned();
        let long = match length {
            Length::Short => None,
            Length::Long => Some(place(&self.long).await.map_err(|_| NotRead::Closed)?),
        };
        let place = place(&self.places).await.map_err(|_| NotRead::Closed)?;
        let read = move || {
            let lent = Lent::take(self, place, long)?;
            lent.connection
                .as_ref()
                .map_or(Err(NotRead::Closed), |connection| read(connection).map_err(NotRead::Failed))
        };
        tokio::task::spawn_blocking(read).await.unwrap_or(Err(NotRead::Panicked))
    }

    /// Waits until nobody reads, and lets nobody read as long as the answer lives. `None` when closed.
    pub async fn pause(&self) -> Option<SemaphorePermit<'_>> {
        self.places.acquire_many(CONNECTIONS).await.ok()
    }

    /// Refuses further reads, and closes what is idle; those under way close when they are done.
    pub fn close(&self) {
        self.places.close();
        self.long.close();
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// A connection that comes back whatever happens.
struct Lent {
    readers: Arc<Readers>,
    connection: Option<Connection>,
    _place: OwnedSemaphorePermit,
    _long: Option<OwnedSemaphorePermit>,
}

impl Lent {
    fn take(
        readers: Arc<Readers>,
        place: OwnedSemaphorePermit,
        long: Option<OwnedSemaphorePermit>,
    ) -> Result<Self, NotRead> {
        // A place is a connection, unless the store was closed meanwhile.
        let connection = readers.idle.lock().unwrap_or_else(PoisonError::into_inner).pop().ok_or(NotRead::Closed)?;
        Ok(Lent { readers, connection: Some(connection), _place: place, _long: long })
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let mut idle = self.readers.idle.lock().unwrap_or_else(PoisonError::into_inner);
        // Looked at under the lock that `close` takes after it has closed the places, so that none is left over.
        if !self.readers.places.is_closed() {
            idle.extend(self.connection.take());
        }
    }
}
