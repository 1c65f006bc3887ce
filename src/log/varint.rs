//! Numbers of variable length: seven bits a byte, lowest first, the top bit says that more follow (LEB128).
//!
//! Signed numbers are folded first (zigzag), so that small ones of either sign are short.

/// Longest encoding of a `u64`.
pub const VARINT_BYTES_MAX: usize = 10;

/// Writes `value` at `at` of `out`; returns where the next field begins.
///
/// # Panics
/// If `out` is too short; [`VARINT_BYTES_MAX`] bytes always suffice.
#[inline]
pub(super) fn put(out: &mut [u8], mut at: usize, mut value: u64) -> usize {
    while value >= 0x80 {
        out[at] = value as u8 | 0x80;
        value >>= 7;
        at += 1;
    }
    out[at] = value as u8;
    at + 1
}

/// Appends `value` to `out`.
pub fn push(out: &mut Vec<u8>, value: u64) {
    let mut bytes = [0; VARINT_BYTES_MAX];
    let end = put(&mut bytes, 0, value);
    out.extend_from_slice(&bytes[..end]);
}

/// Takes a number off the front of `bytes`. `None` if they end within it or it exceeds 64 bits.
#[inline]
pub fn take(bytes: &mut &[u8]) -> Option<u64> {
    let (&first, rest) = bytes.split_first()?;
    if first < 0x80 {
        *bytes = rest;
        return Some(u64::from(first));
    }
    take_long(bytes)
}

fn take_long(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for (index, &byte) in bytes.iter().enumerate().take(VARINT_BYTES_MAX) {
        if index == VARINT_BYTES_MAX - 1 && byte > 1 {
            return None;
        }
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            *bytes = &bytes[index + 1..];
            return Some(value);
        }
    }
    None
}

/// Folds a signed number: 0, -1, 1, -2 … become 0, 1, 2, 3 …
#[inline]
#[must_use]
pub fn fold(value: i64) -> u64 {
    (value << 1 ^ value >> 63) as u64
}

/// The reverse of [`fold`].
#[inline]
#[must_use]
pub fn unfold(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_encodings() {
        for (value, bytes) in [
            (0, &[0][..]),
            (127, &[0x7f]),
            (128, &[0x80, 1]),
            (300, &[0xac, 2]),
            (u64::MAX, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]),
        ] {
            let mut out = Vec::new();
            push(&mut out, value);
            assert_eq!(out, bytes);
        }
        assert_eq!([0, -1, 1, i64::MIN].map(fold), [0, 1, 2, u64::MAX]);
    }

    #[test]
    fn refuses_what_ends_early_or_is_too_large() {
        assert_eq!(take(&mut &[][..]), None);
        assert_eq!(take(&mut &[0x80][..]), None);
        assert_eq!(take(&mut &[0xff; 9][..]), None);
        assert_eq!(take(&mut &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2][..]), None);
        assert_eq!(take(&mut &[0xff; 20][..]), None);
    }

    proptest! {
        #[test]
        fn comes_back(value: u64, signed: i64, shift in 0..64_u32) {
            let value = value >> shift;
            let mut out = Vec::new();
            push(&mut out, value);
            push(&mut out, fold(signed));
            let mut rest = &out[..];
            prop_assert_eq!(take(&mut rest), Some(value));
            prop_assert_eq!(take(&mut rest).map(unfold), Some(signed));
            prop_assert!(rest.is_empty());
        }
    }
}
