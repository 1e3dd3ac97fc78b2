//! Counts the messages of a gRPC body as it goes by: each has five bytes in front, a flag and the length.

/// Where in a body we are.
#[derive(Debug, Default)]
pub(crate) struct Messages {
    /// Bytes of the current prefix.
    prefix: [u8; 5],
    /// How many of them there are.
    known: usize,
    /// Bytes of the current message that are still to come.
    left: u64,
    count: u64,
}

impl Messages {
    /// Takes the body's next bytes, and says how many messages have begun.
    pub(crate) fn see(&mut self, mut data: &[u8]) -> u64 {
        loop {
            let skip = usize::try_from(self.left).unwrap_or(usize::MAX).min(data.len());
            self.left -= skip as u64;
            data = &data[skip..];
            if data.is_empty() {
                return self.count;
            }
            let take = data.len().min(self.prefix.len() - self.known);
            self.prefix[self.known..self.known + take].copy_from_slice(&data[..take]);
            self.known += take;
            data = &data[take..];
            if self.known == self.prefix.len() {
                let [_, length @ ..] = self.prefix;
                (self.left, self.known) = (u64::from(u32::from_be_bytes(length)), 0);
                self.count += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Messages;

    #[test]
    fn messages_are_counted_however_they_are_cut() {
        let body = [&[0, 0, 0, 0, 3][..], b"abc", &[0, 0, 0, 0, 0], &[1, 0, 0, 1, 0], &[7; 256]].concat();
        for piece in [1, 2, 5, 7, 300] {
            let mut messages = Messages::default();
            let count = body.chunks(piece).map(|piece| messages.see(piece)).last();
            assert_eq!(count, Some(3), "in pieces of {piece}");
        }
    }
}
