//! How often an encoded message repeats a field, counted before anything is decoded.
//!
//! An empty element of a repeated field takes two bytes, and a hundred once it is decoded: a message
//! within its limit of bytes can ask for fifty times as much memory. Who decodes what others send
//! counts first. The walk follows prost's: a field may come again anywhere, and its parts add up.
//!
//! What is not here: what fields mean; strings, bytes and packed numbers, whose lengths bound them.

/// The wire types of protobuf that are in use.
const VARINT: u64 = 0;
const FIXED_64: u64 = 1;
const LENGTH: u64 = 2;
const FIXED_32: u64 = 5;

/// Whether `message` has, at each path of field numbers, at most so many fields. False also for what
/// is no message; a message that goes on in a later version passes.
#[must_use]
pub fn within(message: &[u8], most: &[(&[u32], usize)]) -> bool {
    most.iter().all(|(path, most)| count(message, path).is_some_and(|count| count <= *most))
}

fn count(message: &[u8], path: &[u32]) -> Option<usize> {
    let (wanted, below) = path.split_first()?;
    let (mut rest, mut found) = (message, 0);
    while !rest.is_empty() {
        let (number, content) = field(&mut rest)?;
        if let Some(content) = content.filter(|_| number == u64::from(*wanted)) {
            found += if below.is_empty() { 1 } else { count(content, below)? };
        }
    }
    Some(found)
}

/// Takes the first field: its number, and its content if it has a length of its own.
fn field<'a>(rest: &mut &'a [u8]) -> Option<(u64, Option<&'a [u8]>)> {
    let key = varint(rest)?;
    let len = match key & 7 {
        VARINT => return varint(rest).map(|_| (key >> 3, None)),
        FIXED_64 => 8,
        FIXED_32 => 4,
        LENGTH => usize::try_from(varint(rest)?).ok()?,
        // Groups: nobody writes them any more.
        _ => return None,
    };
    let (content, behind) = rest.split_at_checked(len)?;
    *rest = behind;
    Some((key >> 3, Some(content).filter(|_| key & 7 == LENGTH)))
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..70).step_by(7) {
        let (byte, behind) = rest.split_first()?;
        *rest = behind;
        // What is shifted out at the end is refused by prost.
        value |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Field 1 holds a message with two fields 3, then field 3 twice with one each, and others.
    const MESSAGE: &[u8] = &[
        0x0a, 4, 0x1a, 0, 0x1a, 0, // 1: { 3: "", 3: "" }
        0x08, 0x96, 0x01, // 1: 150
        0x15, 1, 2, 3, 4, // 2: fixed 32
        0x11, 1, 2, 3, 4, 5, 6, 7, 8, // 2: fixed 64
        0x1a, 2, 0x1a, 0, // 3: { 3: "" }
        0x0a, 2, 0x1a, 0, // 1: { 3: "" }
    ];

    #[test]
    fn fields_are_counted_along_a_path() {
        for (path, found) in
            [(&[1][..], 2), (&[3], 1), (&[2], 0), (&[1, 3], 3), (&[3, 3], 1), (&[1, 3, 3], 0)]
        {
            assert_eq!(count(MESSAGE, path), Some(found), "{path:?}");
            assert!(within(MESSAGE, &[(path, found)]));
            assert_eq!(within(MESSAGE, &[(&[1], 9), (path, found.wrapping_sub(1))]), found == 0);
        }
    }

    #[test]
    fn what_is_cut_or_no_message_is_refused() {
        for cut in 1..MESSAGE.len() {
            let whole = [6, 9, 14, 23, 27].contains(&cut);
            assert_eq!(within(&MESSAGE[..cut], &[(&[9], 0)]), whole, "{cut}");
        }
        for wrong in [&[0x0b_u8, 0x0c][..], &[0x0e, 0], &[0x08, 0xff], &[0x0a, 0xff, 0xff, 0x7f]] {
            assert!(!within(wrong, &[(&[9], 0)]), "{wrong:?}");
        }
        assert!(!within(&[0xff; 11], &[(&[9], 0)]), "a varint has ten bytes at most");
        assert!(within(&[], &[(&[9], 0)]));
    }
}
