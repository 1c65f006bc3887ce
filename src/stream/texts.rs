//! The texts of subjects, packed into pages.
//!
//! A text costs its length and 6 bytes. A page that is less than half full of living texts is emptied into the newest
//! one, so that at most half of the memory is lost to texts that have gone; one removal moves at most half a page.

use crate::first::First as _;

/// Bytes of a page. The addresses leave 16 bits for the place in it.
const PAGE_BYTES: usize = 1 << 16;
/// Before each text: who owns it (u32, [`NOBODY`] for a removed one), and its length (u16).
const HEAD_BYTES: usize = 6;
const NOBODY: u32 = u32::MAX;

/// Where a text lies: page and place in it.
pub(super) type Address = u32;

#[derive(Default)]
struct Page {
    bytes: Vec<u8>,
    /// Bytes of living texts and their heads.
    live: usize,
}

#[derive(Default)]
pub(super) struct Texts {
    pages: Vec<Page>,
    /// Page that takes new texts.
    open: usize,
    /// Pages without memory.
    free: Vec<usize>,
}

impl Texts {
    /// Whether there is an address left for a text of that length.
    pub(super) fn has_room(&self) -> bool {
        self.pages.len() < PAGE_BYTES || !self.free.is_empty()
    }

    pub(super) fn get(&self, at: Address) -> &[u8] {
        let bytes = &self.pages[page_of(at)].bytes[place_of(at)..];
        let length = usize::from(u16::from_le_bytes([bytes[4], bytes[5]]));
        &bytes[HEAD_BYTES..HEAD_BYTES + length]
    }

    /// Stores a text of at most 32 KiB for `owner`.
    pub(super) fn insert(&mut self, owner: u32, text: &[u8]) -> Address {
        let wanted = HEAD_BYTES + text.len();
        assert!(wanted <= PAGE_BYTES, "a text of {} bytes", text.len());
        if self.pages.get(self.open).is_none_or(|page| page.bytes.len() + wanted > PAGE_BYTES) {
            self.open_page();
        }
        let page = &mut self.pages[self.open];
        if page.bytes.capacity() < page.bytes.len() + wanted {
            // Doubled, but never beyond the end of the page.
            let capacity = (page.bytes.capacity() * 2).max(page.bytes.len() + wanted).min(PAGE_BYTES);
            page.bytes.reserve_exact(capacity - page.bytes.len());
        }
        let place = page.bytes.len();
        page.bytes.extend_from_slice(&owner.to_le_bytes());
        page.bytes.extend_from_slice(&(text.len() as u16).to_le_bytes());
        page.bytes.extend_from_slice(text);
        page.live += wanted;
        (self.open << 16 | place) as Address
    }

    /// Removes a text. `moved` is told where texts are that had to move.
    pub(super) fn remove(&mut self, at: Address, mut moved: impl FnMut(u32, Address)) {
        let index = page_of(at);
        let length = self.get(at).len();
        let page = &mut self.pages[index];
        page.bytes[place_of(at)..place_of(at) + 4].copy_from_slice(&NOBODY.to_le_bytes());
        page.live -= HEAD_BYTES + length;
        if page.live == 0 {
            page.bytes = Vec::new();
            if index != self.open {
                self.free.push(index);
            }
        } else if index != self.open && page.live < page.bytes.len() / 2 {
            let old = std::mem::take(&mut self.pages[index]);
            let mut rest = &old.bytes[..];
            while let Some((head, tail)) = rest.split_first_chunk::<HEAD_BYTES>() {
                let owner = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
                let (text, behind) = tail.split_at(usize::from(u16::from_le_bytes([head[4], head[5]])));
                if owner != NOBODY {
                    moved(owner, self.insert(owner, text));
                }
                rest = behind;
            }
            self.free.push(index);
        }
    }

    fn open_page(&mut self) {
        self.open = self.free.pop().unwrap_or(self.pages.len());
        if self.open == self.pages.len() {
            self.pages.reserve_first();
            self.pages.push(Page::default());
        }
    }

    #[cfg(test)]
    fn heap_bytes(&self) -> usize {
        self.pages.iter().map(|page| page.bytes.capacity()).sum()
    }
}

fn page_of(at: Address) -> usize {
    (at >> 16) as usize
}

fn place_of(at: Address) -> usize {
    (at & 0xffff) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever is removed, the rest is found, and memory follows what lives.
    #[test]
    fn room_of_removed_texts_comes_back() {
        let text = |owner: u32| format!("subject.{owner}.{}", "x".repeat(owner as usize % 50));
        let mut texts = Texts::default();
        let mut places: Vec<Option<Address>> = (0..50_000).map(|n| Some(texts.insert(n, text(n).as_bytes()))).collect();
        let full = texts.heap_bytes();
        let mut random = fastrand::Rng::with_seed(7);
        for round in 0..3 {
            for n in 0..places.len() as u32 {
                if let Some(at) = places[n as usize].filter(|_| random.u8(..10) < 9) {
                    places[n as usize] = None;
                    texts.remove(at, |owner, now_at| places[owner as usize] = Some(now_at));
                }
            }
            assert!(texts.heap_bytes() < full / 4, "{} of {full} bytes in round {round}", texts.heap_bytes());
            for n in 0..places.len() as u32 {
                match places[n as usize] {
                    Some(at) => assert_eq!(texts.get(at), text(n).as_bytes()),
                    None => places[n as usize] = Some(texts.insert(n, text(n).as_bytes())),
                }
            }
            assert!(texts.heap_bytes() < full * 2, "{} of {full} bytes in round {round}", texts.heap_bytes());
        }
    }
}
