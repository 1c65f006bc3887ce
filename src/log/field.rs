//! Fields of fixed width, little endian, at fixed places of headers.
//!
//! Whoever reads has checked that the header is there; the offsets are constants of the layout.

pub(super) fn put<const N: usize>(header: &mut [u8], at: usize, value: [u8; N]) {
    header[at..at + N].copy_from_slice(&value);
}

pub(super) fn get<const N: usize>(header: &[u8], at: usize) -> [u8; N] {
    let mut value = [0; N];
    value.copy_from_slice(&header[at..at + N]);
    value
}

pub(super) fn u16_at(header: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(get(header, at))
}

pub(super) fn u32_at(header: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(get(header, at))
}

pub(super) fn u64_at(header: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(get(header, at))
}

pub(super) fn i64_at(header: &[u8], at: usize) -> i64 {
    i64::from_le_bytes(get(header, at))
}
