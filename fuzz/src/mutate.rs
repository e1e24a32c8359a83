//! Mutations from a seed: the same seed gives the same bytes on every machine.

/// Pieces that parsers trip over.
const PIECES: &[&[u8]] = &[
    b"..",
    b"%2e",
    b"%2F",
    b"%25",
    b"%5c",
    b"%00",
    b"/",
    b"//",
    b"\\",
    b"{x}",
    b"{*rest}",
    b"*",
    b"?",
    b"#",
    b";",
    b":",
    b",",
    b"@",
    b"\"",
    b"'",
    b"\0",
    b"\r\n",
    b"\n",
    b"\r",
    b"\t",
    b" ",
    b"\xff",
    b"\xc3\xa9",
    b"=",
    b"[",
    b"]",
    b"0",
    b"-1",
    b"99999999999999999999",
    b"content-length: 5\r\n",
    b"transfer-encoding: chunked\r\n",
    b"chunked",
    b"0\r\n\r\n",
    b"\r\n\r\n",
    b"GET / HTTP/1.1\r\nhost: a\r\n\r\n",
    b"HTTP/1.0",
    b"via: 1.1 headgate\r\n",
    b"connection: close\r\n",
    b"no-store",
    b"private",
    b"max-age=60",
    b"10.0.0.1",
    b"::1",
    b"example.test",
    b"${",
    b"}",
];

/// SplitMix64.
pub struct Dice(pub u64);

impl Dice {
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.number() % bound.max(1) as u64) as usize
    }

    pub fn of<'t, T>(&mut self, list: &'t [T]) -> &'t T {
        &list[self.below(list.len())]
    }
}

/// The most bytes of a mutation.
const LONGEST: usize = 16 * 1024;

/// One of the corpus, changed in one to four places.
pub fn mutated(corpus: &[Vec<u8>], dice: &mut Dice) -> Vec<u8> {
    let mut data = dice.of(corpus).clone();
    for _ in 0..=dice.below(4) {
        let at = dice.below(data.len() + 1);
        let end = (at + dice.below(16)).min(data.len());
        match dice.below(7) {
            0 if at < data.len() => data[at] ^= 1 << dice.below(8),
            1 if at < data.len() => data[at] = dice.number() as u8,
            2 => drop(data.splice(at..at, dice.of(PIECES).iter().copied())),
            3 => drop(data.splice(at..end, dice.of(PIECES).iter().copied())),
            4 => drop(data.drain(at..end)),
            5 => {
                let again = data[at..end].to_vec();
                data.splice(at..at, again);
            }
            _ => {
                let other = dice.of(corpus);
                let from = dice.below(other.len() + 1);
                data.truncate(at);
                data.extend_from_slice(&other[from..]);
            }
        }
    }
    data.truncate(LONGEST);
    data
}
