//! What a file is, told from its outline: the compiler's words for a wrong file help nobody.

use super::error::LoadError;

const MAGIC: &[u8] = b"\0asm";
const CORE: [u8; 4] = [1, 0, 0, 0];
const PREAMBLE: usize = 8;

/// Whether the bytes look like a whole component.
pub(super) fn check(bytes: &[u8]) -> Result<(), LoadError> {
    if bytes.is_empty() {
        return Err(LoadError::Empty);
    }
    let truncated = || LoadError::Truncated { bytes: bytes.len() };
    if !bytes.starts_with(MAGIC) {
        return Err(if MAGIC.starts_with(bytes) { truncated() } else { LoadError::NotWasm });
    }
    let Some(version) = bytes.get(MAGIC.len()..PREAMBLE) else { return Err(truncated()) };
    let mut rest = &bytes[PREAMBLE..];
    // Files are laid out in advance by some who write them: zeros where the content is to come.
    if version == [0; 4] {
        return Err(truncated());
    }
    if version == CORE {
        return Err(LoadError::CoreModule);
    }
    while let [_id, after @ ..] = rest {
        let (size, after) = section_size(after).ok_or_else(truncated)?;
        rest = after.get(size..).ok_or_else(truncated)?;
    }
    Ok(())
}

/// An unsigned LEB128 of 32 bits. One that is malformed is left to the compiler to complain about, so it counts as 0.
fn section_size(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut size = 0usize;
    for (at, byte) in bytes.iter().enumerate().take(5) {
        size |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((size, &bytes[at + 1..]));
        }
    }
    (bytes.len() >= 5).then(|| (0, &bytes[bytes.len()..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A component with one custom section named "a" that holds `x`.
    const SMALL: &[u8] = b"\0asm\x0d\0\x01\0\0\x03\x01ax";

    #[test]
    fn a_component_is_whole_only_with_its_last_byte() {
        check(SMALL).unwrap();
        check(&SMALL[..PREAMBLE]).unwrap();
        assert!(matches!(check(b""), Err(LoadError::Empty)));
        for end in (1..PREAMBLE).chain(PREAMBLE + 1..SMALL.len()) {
            assert!(matches!(check(&SMALL[..end]), Err(LoadError::Truncated { bytes }) if bytes == end), "{end}");
        }
    }

    #[test]
    fn other_files_are_told_apart() {
        assert!(matches!(check(b"#!/bin/sh"), Err(LoadError::NotWasm)));
        assert!(matches!(check(b"\0asm\x01\0\0\0"), Err(LoadError::CoreModule)));
    }

    proptest! {
        #[test]
        fn no_input_panics(bytes: Vec<u8>) {
            let _ = check(&bytes);
            let _ = check(&[SMALL, &bytes].concat());
        }
    }
}
