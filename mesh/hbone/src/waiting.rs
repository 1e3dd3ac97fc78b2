//! Bytes that wait for a socket or a window. Nearly every connection has none at nearly any time, so that having none
//! takes the room of a pointer only.

/// What waits, in order; taken from the front.
#[derive(Debug, Default)]
pub(crate) struct Waiting(Option<Box<Bytes>>);

#[derive(Debug)]
struct Bytes {
    bytes: Vec<u8>,
    /// `bytes[..at]` is gone already.
    at: usize,
}

impl Waiting {
    pub(crate) fn len(&self) -> usize {
        self.as_slice().len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        self.0.as_ref().map_or(&[], |waiting| &waiting.bytes[waiting.at..])
    }

    pub(crate) fn push(&mut self, more: &[u8]) {
        if !more.is_empty() {
            let waiting = self.0.get_or_insert_with(|| Box::new(Bytes { bytes: Vec::new(), at: 0 }));
            // A reader that is slow but steady may never take the last of them: what is gone must not stay.
            if waiting.at > 0 && waiting.at >= waiting.bytes.len() / 2 {
                waiting.bytes.drain(..waiting.at);
                waiting.at = 0;
            }
            // A vector that grows doubles: who does not read would hold twice what its window lets come.
            let lacks = (waiting.bytes.len() + more.len()).saturating_sub(waiting.bytes.capacity());
            if lacks > 0 {
                waiting.bytes.reserve_exact(more.len().max(waiting.bytes.len() / 4));
            }
            waiting.bytes.extend_from_slice(more);
        }
    }

    /// Forgets the first `count`; what was allocated goes with the last of them.
    pub(crate) fn advance(&mut self, count: usize) {
        if let Some(waiting) = &mut self.0 {
            waiting.at += count;
            if waiting.at >= waiting.bytes.len() {
                self.0 = None;
            }
        }
    }
}

impl From<Vec<u8>> for Waiting {
    fn from(bytes: Vec<u8>) -> Self {
        Self((!bytes.is_empty()).then(|| Box::new(Bytes { bytes, at: 0 })))
    }
}

impl From<Waiting> for Vec<u8> {
    fn from(waiting: Waiting) -> Self {
        let Some(waiting) = waiting.0 else { return Self::new() };
        let Bytes { mut bytes, at } = *waiting;
        bytes.drain(..at);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gone_takes_no_room_though_something_always_waits() {
        let (mut waiting, more) = (Waiting::default(), vec![7; 1 << 20]);
        waiting.push(b"x");
        for _ in 0..100 {
            waiting.push(&more);
            waiting.advance(1 << 20);
            assert_eq!(waiting.len(), 1);
            let room = waiting.0.as_ref().map(|waiting| waiting.bytes.capacity());
            assert!(room.is_some_and(|room| room <= 4 << 20), "{room:?}");
        }
    }

    #[test]
    fn bytes_leave_in_order_and_leave_nothing_behind() {
        let mut waiting = Waiting::default();
        waiting.push(b"");
        assert!(waiting.is_empty());
        waiting.push(b"abc");
        waiting.push(b"def");
        waiting.advance(4);
        waiting.push(b"g");
        assert_eq!((waiting.as_slice(), waiting.len()), (&b"efg"[..], 3));
        waiting.advance(3);
        assert!(waiting.is_empty());
        waiting.advance(0);
        let mut waiting = Waiting::from(b"xyz".to_vec());
        waiting.advance(1);
        assert_eq!(Vec::from(waiting), b"yz");
        assert!(Waiting::from(Vec::new()).is_empty());
        assert!(Vec::from(Waiting::default()).is_empty());
    }
}
