//! Keys of the broker's tables. Each is a slot number: small, `Copy`, reused only after everything
//! that named the old tenant is gone, which the broker does in the same call that frees the slot.

/// A connection: the shell's slab slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u32);

/// A queue of any virtual host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueueKey(pub u32);

/// An exchange of any virtual host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExchangeKey(pub u32);

/// A virtual host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VhostKey(pub u32);

/// A channel: its connection and the number the client gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChannelId {
    /// The connection it lives on.
    pub connection: ConnectionId,
    /// 1..=65535; 0 is the connection itself.
    pub number: u16,
}

macro_rules! slot {
    ($($key:ident),*) => {$(
        impl $key {
            /// The slot as an index.
            pub const fn index(self) -> usize {
                self.0 as usize
            }

            /// The key of slot `index`.
            ///
            /// # Panics
            /// When 2^32 slots are in use, which memory ends long before.
            pub fn from_index(index: usize) -> $key {
                $key(u32::try_from(index).expect("fewer than 2^32 slots"))
            }
        }
    )*};
}
slot!(ConnectionId, QueueKey, ExchangeKey, VhostKey);
