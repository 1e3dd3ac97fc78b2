//! Flow control, both directions and both levels.
//!
//! Credit is given when an application has taken the bytes, never when they arrive: what a slow one makes us hold is
//! bounded by its stream's window, which grows with what the stream has carried ([`crate::windows`]).

use super::{Engine, Event, Fault, Key};
use crate::frame::{self, LARGEST_WINDOW, code};
use crate::limits::Limit;
use crate::windows::growth;

impl<T: Default> Engine<T> {
    /// Payload bytes that may be sent on a stream now.
    pub(crate) fn budget(&self, key: Key) -> usize {
        let stream = &self.streams[key];
        if stream.is_over() || stream.local_ended {
            return 0;
        }
        i64::from(stream.send_window).min(self.send_window).max(0) as usize
    }

    /// `bytes` of payload were laid for a stream.
    pub(crate) fn sent(&mut self, key: Key, bytes: usize) {
        // Within the budget, which is no more than the window.
        self.streams[key].send_window -= bytes as i32;
        self.send_window -= bytes as i64;
    }

    /// The application took `bytes` of a stream: grants them again once a quarter of a window has come together, so that
    /// a sender in full flow never waits for it.
    pub(crate) fn consumed(&mut self, key: Key, bytes: usize) {
        self.consumed_unowned(bytes);
        let stream = &mut self.streams[key];
        let step = stream.window / 4;
        stream.uncredited += bytes as u32;
        if stream.uncredited >= step && !stream.remote_ended && !stream.reset {
            let consumed = std::mem::take(&mut stream.uncredited);
            stream.carried = stream.carried.saturating_add(consumed);
            let mut grant = consumed;
            let more = growth(stream.window, self.limits.largest_stream_window, stream.carried);
            if more > 0 && self.wider.take(more) {
                stream.window += more;
                grant += more;
            }
            stream.receive_window += grant as i32;
            frame::window_update(&mut self.control, stream.id, grant);
            // The connection's credit goes along, or it would leave in a send of its own soon after.
            if self.uncredited >= step {
                self.grant_connection();
            }
        }
    }

    /// `bytes` that belong to no stream any more are granted to the connection again.
    pub(crate) fn consumed_unowned(&mut self, bytes: usize) {
        self.uncredited += bytes as u32;
        if self.uncredited >= self.limits.connection_window / 4 {
            self.grant_connection();
        }
    }

    fn grant_connection(&mut self) {
        let grant = std::mem::take(&mut self.uncredited);
        self.receive_window += i64::from(grant);
        frame::window_update(&mut self.control, 0, grant);
    }

    /// Charges an arriving DATA frame (padding included) to the connection.
    pub(super) fn charge_connection(&mut self, bytes: u32) -> Result<(), Fault> {
        self.receive_window -= i64::from(bytes);
        if self.receive_window < 0 {
            return Err(Fault::above(
                Limit::Window,
                code::FLOW_CONTROL_ERROR,
                "DATA beyond the connection's window",
            ));
        }
        Ok(())
    }

    /// A grant from the peer.
    pub(super) fn granted(&mut self, id: u32, bytes: u32, events: &mut Vec<Event>) -> Result<(), Fault> {
        if id == 0 {
            return self.connection_granted(bytes, events);
        }
        let Some(key) = self.streams.find(id) else {
            self.check_not_idle(id)?;
            return self.rates.empty();
        };
        let stream = &mut self.streams[key];
        if bytes == 0 {
            return self.stream_fault(key, code::PROTOCOL_ERROR, events);
        }
        let Ok(window) = i32::try_from(i64::from(stream.send_window) + i64::from(bytes)) else {
            return self.stream_fault(key, code::FLOW_CONTROL_ERROR, events);
        };
        let was_shut = stream.send_window <= 0;
        stream.send_window = window;
        if was_shut && stream.send_window > 0 {
            events.push(Event::Writable(key));
        }
        Ok(())
    }

    fn connection_granted(&mut self, bytes: u32, events: &mut Vec<Event>) -> Result<(), Fault> {
        if bytes == 0 {
            return Err(Fault::new(code::PROTOCOL_ERROR, "WINDOW_UPDATE of 0 for the connection"));
        }
        let was_shut = self.send_window <= 0;
        self.send_window += i64::from(bytes);
        if self.send_window > LARGEST_WINDOW {
            return Err(Fault::new(code::FLOW_CONTROL_ERROR, "the connection's window grew beyond 2^31-1"));
        }
        if was_shut && self.send_window > 0 {
            events.push(Event::AllWritable);
        }
        Ok(())
    }

    /// The peer's SETTINGS_INITIAL_WINDOW_SIZE: changes every stream's window by the difference.
    pub(super) fn first_window(&mut self, value: u32, events: &mut Vec<Event>) -> Result<(), Fault> {
        let value = i64::from(value);
        if value > LARGEST_WINDOW {
            return Err(Fault::new(code::FLOW_CONTROL_ERROR, "SETTINGS_INITIAL_WINDOW_SIZE beyond 2^31-1"));
        }
        let change = value - self.peer_first_window;
        self.peer_first_window = value;
        for (_, stream) in self.streams.iter_mut() {
            stream.send_window = i32::try_from(i64::from(stream.send_window) + change).map_err(|_| {
                Fault::new(code::FLOW_CONTROL_ERROR, "SETTINGS made a stream's window overflow")
            })?;
        }
        if change > 0 {
            events.push(Event::AllWritable);
        }
        Ok(())
    }
}
