//! Frames: the one codec for journal records and shim messages.
//!
//! Version history: 1 — magic, length, checksum, body.
//!
//! | bytes | what |
//! |---|---|
//! | 0..4 | magic `B7 67 66 31` |
//! | 4..8 | length of the body, little endian |
//! | 8..12 | crc32c of length and body, little endian |
//! | 12.. | body: CBOR with numbered fields; an older reader skips what it does not know |
//!
//! A torn tail is normal ("need more"). A bad middle is an error; a journal reader calls
//! [`Decoder::resync`] and goes on, a reader of messages closes the connection.

/// First four bytes of each frame. Not UTF-8, so text cannot contain it.
pub const MAGIC: [u8; 4] = [0xB7, 0x67, 0x66, 0x31];
/// Bytes before the body.
pub const HEADER: usize = 12;
/// Longest body that is written or accepted.
pub const MAX_FRAME: usize = 8 << 20;

/// What is wrong with the bytes at hand.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// No magic where a frame must begin.
    #[error("no frame magic")]
    Magic,
    /// Longer than [`MAX_FRAME`].
    #[error("frame of {0} bytes is longer than allowed")]
    Length(usize),
    /// Checksum differs.
    #[error("frame checksum differs")]
    Checksum,
}

/// Wraps a body of at most [`MAX_FRAME`] bytes.
pub fn encode(body: &[u8]) -> Vec<u8> {
    assert!(
        body.len() <= MAX_FRAME,
        "frame bodies are bounded by their makers"
    );
    let mut frame = Vec::with_capacity(HEADER + body.len());
    frame.extend_from_slice(&MAGIC);
    frame.extend_from_slice(&(body.len() as u32).to_le_bytes());
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(body);
    seal(&mut frame);
    frame
}

/// Writes the checksum of a frame whose other bytes are in place. Allocates nothing: a child between
/// clone and exec calls it for its `Born`.
pub fn seal(frame: &mut [u8]) {
    let crc = checksum(frame);
    frame[8..12].copy_from_slice(&crc.to_le_bytes());
}

fn checksum(frame: &[u8]) -> u32 {
    !update(update(!0, &frame[4..8]), &frame[HEADER..])
}

const TABLE: [u32; 256] = {
    let mut table = [0u32; 256];
    let mut i = 0;
    while i < 256 {
        let mut crc = i as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 {
                (crc >> 1) ^ 0x82F6_3B78
            } else {
                crc >> 1
            };
            bit += 1;
        }
        table[i] = crc;
        i += 1;
    }
    table
};

/// CRC-32C of bytes.
pub fn crc32c(bytes: &[u8]) -> u32 {
    !update(!0, bytes)
}

/// By the processor's own instruction where it has one, else byte by byte with a table of 1 KiB.
fn update(crc: u32, bytes: &[u8]) -> u32 {
    #[cfg(target_arch = "x86_64")]
    if std::is_x86_feature_detected!("sse4.2") {
        // SAFETY: the processor has the instruction.
        return unsafe { update_by_instruction(crc, bytes) };
    }
    update_by_table(crc, bytes)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "sse4.2")]
fn update_by_instruction(crc: u32, bytes: &[u8]) -> u32 {
    use core::arch::x86_64::{_mm_crc32_u8, _mm_crc32_u64};
    let mut words = bytes.chunks_exact(8);
    let mut wide = u64::from(crc);
    for word in &mut words {
        wide = _mm_crc32_u64(wide, u64::from_le_bytes(word.try_into().unwrap_or_default()));
    }
    let mut crc = wide as u32;
    for byte in words.remainder() {
        crc = _mm_crc32_u8(crc, *byte);
    }
    crc
}

fn update_by_table(mut crc: u32, bytes: &[u8]) -> u32 {
    for byte in bytes {
        crc = TABLE[((crc ^ u32::from(*byte)) & 0xFF) as usize] ^ (crc >> 8);
    }
    crc
}

/// Takes bytes as they come, gives whole bodies.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    start: usize,
}

impl Decoder {
    /// An empty one.
    pub fn new() -> Decoder {
        Decoder::default()
    }

    /// More bytes have come.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 && self.start >= self.buffer.len() / 2 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next body; `None`: need more. After an error nothing is consumed: see [`Decoder::resync`].
    pub fn next_frame(&mut self) -> Result<Option<Vec<u8>>, FrameError> {
        let bytes = &self.buffer[self.start..];
        let known = bytes.len().min(4);
        if bytes[..known] != MAGIC[..known] {
            return Err(FrameError::Magic);
        }
        if bytes.len() < HEADER {
            return Ok(None);
        }
        let length = u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]) as usize;
        if length > MAX_FRAME {
            return Err(FrameError::Length(length));
        }
        if bytes.len() < HEADER + length {
            return Ok(None);
        }
        let frame = &bytes[..HEADER + length];
        if checksum(frame).to_le_bytes() != frame[8..12] {
            return Err(FrameError::Checksum);
        }
        let body = frame[HEADER..].to_vec();
        self.start += HEADER + length;
        Ok(Some(body))
    }

    /// Skips at least one byte, up to where the next frame may begin. Returns how many were skipped.
    pub fn resync(&mut self) -> usize {
        let bytes = &self.buffer[self.start..];
        let mut skipped = bytes.len().min(1);
        while skipped < bytes.len() {
            let known = (bytes.len() - skipped).min(4);
            if bytes[skipped..skipped + known] == MAGIC[..known] {
                break;
            }
            skipped += 1;
        }
        self.start += skipped;
        skipped
    }

    /// Bytes held that belong to no body yet.
    pub fn pending(&self) -> usize {
        self.buffer.len() - self.start
    }

    /// Forgets everything held.
    pub fn clear(&mut self) {
        self.buffer.clear();
        self.start = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instruction_and_table_agree_on_every_length() {
        let bytes: Vec<u8> = (0..100u8).map(|n| n.wrapping_mul(37)).collect();
        for end in 0..bytes.len() {
            assert_eq!(update(!0, &bytes[..end]), update_by_table(!0, &bytes[..end]));
        }
    }
}
