//! Input cut into pieces, for targets that promise to see no difference.

/// `input` in pieces of 1 to 32 bytes that follow from `seed`; the first seeds give pieces of one size.
pub(crate) fn pieces(input: &[u8], seed: u8) -> impl Iterator<Item = &[u8]> {
    let mut state = u32::from(seed) | 1 << 8;
    let mut rest = input;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let wanted = if seed < 32 {
            usize::from(seed) + 1
        } else {
            // xorshift32: any dull generator that never reaches zero.
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            (state % 32) as usize + 1
        };
        let (piece, later) = rest.split_at(wanted.min(rest.len()));
        rest = later;
        Some(piece)
    })
}
