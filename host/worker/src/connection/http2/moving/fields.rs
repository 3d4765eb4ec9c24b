//! What a block of header fields tells of its sender's table (HPACK, RFC 7541), without a look at the fields.
//!
//! Pure. Some clients have no use for a table (Java's, up to 17 at least), and say nothing when they are told to give it up;
//! others say only what they may have in the end (gRPC's in C). Both can go on where nobody has their table. What must not
//! happen is that a client refers to an entry that was made elsewhere. It could not be taken for another one: entries are
//! counted from the newest. But it would be an error that ends the connection.

/// How many entries everybody has (appendix A).
const EVERYBODYS: u64 = 61;

/// How many entries a client's table has at most: it has 4096 bytes, and none has less than 32 (section 4.1).
const MOST: u64 = 4096 / 32;

/// What one block says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Block {
    /// The table's size has changed, and whether to nothing.
    pub changes: bool,
    pub empties: bool,
    /// How many entries it makes.
    made: u64,
    /// How many of the newest entries before it are needed for what it refers to.
    needed: u64,
}

impl Block {
    /// One that gives the table up.
    pub const EMPTIES: Self = Self { changes: true, empties: true, made: 0, needed: 0 };

    /// Reads a whole block. `None` if it is none.
    pub fn read(mut bytes: &[u8]) -> Option<Self> {
        let mut block = Self::default();
        while let Some(first) = bytes.first() {
            match first {
                0x80.. => block.refer(number(&mut bytes, 7)?),
                0x40.. => {
                    block.literal(&mut bytes, 6)?;
                    block.made += 1;
                }
                0x20.. => {
                    block.changes = true;
                    block.empties |= number(&mut bytes, 5)? == 0;
                }
                _ => block.literal(&mut bytes, 4)?,
            }
        }
        Some(block)
    }

    /// Whether it has nothing to do with the table.
    pub const fn is_plain(&self) -> bool {
        self.made == 0 && self.needed == 0
    }

    fn refer(&mut self, index: u64) {
        self.needed = self.needed.max(index.saturating_sub(EVERYBODYS + self.made));
    }

    fn literal(&mut self, bytes: &mut &[u8], bits: u8) -> Option<()> {
        let name = number(bytes, bits)?;
        self.refer(name);
        for _ in 0..if name == 0 { 2 } else { 1 } {
            let length = usize::try_from(number(bytes, 7)?).ok()?;
            *bytes = bytes.get(length..)?;
        }
        Some(())
    }
}

/// The changes of the table's size with which a block begins (section 6.3): whether one of them is to nothing, and what comes
/// behind them.
pub fn without_changes(mut block: &[u8]) -> (bool, &[u8]) {
    let mut empties = false;
    while block.first().is_some_and(|first| first & 0xe0 == 0x20)
        && let Some(size) = number(&mut block, 5)
    {
        empties |= size == 0;
    }
    (empties, block)
}

/// Takes a number whose prefix has so many bits (section 5.1).
fn number(bytes: &mut &[u8], bits: u8) -> Option<u64> {
    let (first, mut rest) = bytes.split_first()?;
    let most = u64::from(u8::MAX >> (8 - bits));
    let mut number = u64::from(*first) & most;
    if number == most {
        for shift in [0, 7, 14, 21, 28] {
            let (next, behind) = rest.split_first()?;
            rest = behind;
            number += u64::from(next & 0x7f) << shift;
            if next & 0x80 == 0 {
                *bytes = rest;
                return Some(number);
            }
        }
        return None;
    }
    *bytes = rest;
    Some(number)
}

/// A client that has come here, and may refer to what was made elsewhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Doubt {
    made: u64,
    changed: bool,
}

impl Doubt {
    /// What is left of it behind the client's next block. `Err` if the client can't go on here.
    pub fn behind(mut self, block: Block) -> Result<Option<Self>, ()> {
        self.changed |= block.changes;
        if block.empties {
            return Ok(None);
        }
        // Who goes on with a table and has not been seen to follow what it was told has the old one.
        if block.needed > self.made || !block.is_plain() && !self.changed {
            return Err(());
        }
        self.made += block.made;
        Ok((self.made < MOST).then_some(self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `:method: GET`, then `x: y` that is not put into the table, and one whose length needs two bytes.
    const PLAIN: [u8; 7] = [0x82, 0x00, 0x01, b'x', 0x01, b'y', 0x86];
    /// `x: y` that is put into the table.
    const MAKES: [u8; 5] = [0x40, 0x01, b'x', 0x01, b'y'];

    fn read(blocks: &[&[u8]]) -> Block {
        Block::read(&blocks.concat()).unwrap()
    }

    #[test]
    fn a_block_shows_what_it_does_with_the_table() {
        assert!(read(&[&PLAIN]).is_plain());
        assert_eq!(read(&[&[0x20], &PLAIN]), Block { changes: true, empties: true, ..Block::default() });
        // 4096.
        assert_eq!(read(&[&[0x3f, 0xe1, 0x1f], &PLAIN]), Block { changes: true, ..Block::default() });
        assert_eq!(read(&[&MAKES, &[0xbe]]), Block { made: 1, ..Block::default() });
        assert_eq!(read(&[&MAKES, &[0xbf]]), Block { made: 1, needed: 1, ..Block::default() });
        // A name from the table: the 62nd and the 64th, of which the first byte holds 15.
        assert_eq!(read(&[&[0x0f, 0x2f, 0x00]]).needed, 1);
        assert_eq!(read(&[&[0x7f, 0x01, 0x00]]), Block { made: 1, needed: 3, ..Block::default() });
        let long = [&[0x00, 0x01, b'x', 0x7f, 0x49][..], &[b'y'; 200]].concat();
        assert!(read(&[&long]).is_plain());
        for cut in [&PLAIN[..5], &long[..100], &[0x7f, 0x80][..], &[0xff; 9][..], &[0x40][..]] {
            assert_eq!(Block::read(cut), None, "{cut:?}");
        }
    }

    #[test]
    fn doubt_ends_with_an_empty_table_or_a_new_one() {
        let doubt = Doubt::default();
        assert_eq!(doubt.behind(read(&[&PLAIN])), Ok(Some(doubt)), "who has no table shows nothing");
        assert_eq!(doubt.behind(read(&[&[0x20], &MAKES])), Ok(None));
        assert_eq!(doubt.behind(read(&[&MAKES])), Err(()), "it was told to give its table up");
        assert_eq!(doubt.behind(read(&[&[0xbe]])), Err(()));
        assert_eq!(doubt.behind(read(&[&[0x3f, 0xe1, 0x1f], &[0xbe]])), Err(()));
        let mut followed = doubt.behind(read(&[&[0x3f, 0xe1, 0x1f], &MAKES])).unwrap().unwrap();
        assert!(followed.behind(read(&[&[0xbe]])).is_ok() && followed.behind(read(&[&[0xbf]])).is_err());
        for _ in 2..MOST {
            followed = followed.behind(read(&[&MAKES])).unwrap().unwrap();
        }
        assert_eq!(followed.behind(read(&[&MAKES])), Ok(None), "there is no room for another's");
    }
}
