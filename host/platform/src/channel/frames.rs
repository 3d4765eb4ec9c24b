//! Messages in a stream of bytes: each a length in four bytes and a text of that many.
//!
//! Pure, and bounded whatever the bytes are: no more is kept than one message has. Both ends are the same binary,
//! so the length is in the machine's own order.

/// The longest text of a message, in bytes.
pub const MAX_TEXT: usize = 32 * 1024;

const LENGTH: usize = size_of::<u32>();

/// A stream that can't be read any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("a message of {0} bytes, of which at most {MAX_TEXT} are taken")]
    Length(usize),
    #[error("the end comes in the middle of a message")]
    Cut,
}

/// What has come and hasn't been taken.
#[derive(Debug, Default)]
pub struct Frames {
    bytes: Vec<u8>,
}

impl Frames {
    /// How many more bytes may be [put](Self::put) before a message has to be taken.
    pub fn room(&self) -> usize {
        (LENGTH + MAX_TEXT).saturating_sub(self.bytes.len())
    }

    /// Adds what has come; what goes beyond the [room](Self::room) is nothing that a message could need.
    pub fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(&bytes[..bytes.len().min(self.room())]);
    }

    /// The text of the next message, if all of it is there.
    pub fn take(&mut self) -> Result<Option<Vec<u8>>, FrameError> {
        let Some((length, rest)) = self.bytes.split_first_chunk() else { return Ok(None) };
        let length = usize::try_from(u32::from_ne_bytes(*length)).unwrap_or(usize::MAX);
        if length > MAX_TEXT {
            return Err(FrameError::Length(length));
        }
        let Some(text) = rest.get(..length) else { return Ok(None) };
        let text = text.to_vec();
        self.bytes.drain(..LENGTH + length);
        Ok(Some(text))
    }

    /// Checks that the stream may end here.
    pub fn end(&self) -> Result<(), FrameError> {
        if self.bytes.is_empty() { Ok(()) } else { Err(FrameError::Cut) }
    }
}

/// A message as it travels.
pub fn frame(text: &[u8]) -> Result<Vec<u8>, FrameError> {
    let length = u32::try_from(text.len()).ok().filter(|_| text.len() <= MAX_TEXT);
    let length = length.ok_or(FrameError::Length(text.len()))?;
    let mut bytes = Vec::with_capacity(LENGTH + text.len());
    bytes.extend_from_slice(&length.to_ne_bytes());
    bytes.extend_from_slice(text);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_length_that_no_message_has_is_an_error_before_its_text_comes() {
        let mut frames = Frames::default();
        frames.put(&u32::MAX.to_ne_bytes());
        assert_eq!(frames.take(), Err(FrameError::Length(u32::MAX as usize)));
        assert_eq!(frame(&vec![0; MAX_TEXT + 1]), Err(FrameError::Length(MAX_TEXT + 1)));
    }

    proptest! {
        #[test]
        fn what_is_framed_comes_out_however_it_is_cut_on_the_way(
            texts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..20),
            piece in 1_usize..500,
        ) {
            let stream: Vec<u8> = texts.iter().flat_map(|text| frame(text).unwrap()).collect();
            let (mut frames, mut found) = (Frames::default(), Vec::new());
            for piece in stream.chunks(piece) {
                frames.put(piece);
                while let Some(text) = frames.take().unwrap() {
                    found.push(text);
                }
            }
            prop_assert_eq!(found, texts);
            prop_assert_eq!(frames.end(), Ok(()));
        }

        #[test]
        fn no_bytes_are_feared_and_few_are_kept(bytes in prop::collection::vec(any::<u8>(), 0..100_000)) {
            let mut frames = Frames::default();
            frames.put(&bytes);
            prop_assert!(frames.bytes.len() <= LENGTH + MAX_TEXT);
            while let Ok(Some(_)) = frames.take() {}
        }
    }
}
