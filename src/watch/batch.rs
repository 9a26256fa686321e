//! Events and the names of what is in them, on their way to whoever watches.

use crate::abi;

use super::Names;

/// What happened since the last batch.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// The oldest first. The first batch that a watcher gets begins with an `EVENT_SNAPSHOT` for
    /// each wait that goes on.
    pub events: Vec<abi::proxy_event>,
    /// Events that are missing before these: the ring was full, or the watcher too slow.
    pub lost: u64,
    /// Names that are new since the last batch; of a first batch all that are known.
    pub names: Names,
    /// Whether the scheduler donates at the end of this batch.
    pub donating: bool,
}
