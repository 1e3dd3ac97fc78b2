//! How both ends of a connection learn that it broke: by a reset, never by the end that says that this was all.

use hbone::tunnel::Stream;

/// One end of a connection.
pub(crate) trait BreakOff {
    /// Has its application's connection reset once this end is dropped; nothing may be read or written any more.
    fn break_off(&mut self);
}

/// The same with both ends.
pub(crate) fn break_off_both(client: &mut impl BreakOff, server: &mut impl BreakOff) {
    client.break_off();
    server.break_off();
}

impl BreakOff for Stream {
    fn break_off(&mut self) {
        Stream::break_off(self);
    }
}
