//! Lookups of many keys in a B+tree of pages, straight from the memory map.
//!
//! The layout is that of `storage/bolt/page.py`, which says what it means; here offsets are followed and keys compared.
//! Rules that hold here:
//! * Every page is compared to its checksum before anything is made of it, where checksums are given.
//! * Nothing is read outside of the map, whatever the pages say. On the first thing that is not as it should be the answer
//!   is None: the caller then looks by itself, and names the page.
//! * Keys are looked up in ascending order, whatever order they come in: neighbours share the way down, and a page is
//!   proved once for all keys below it.

use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyBufferError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

const HEADER_BYTES: usize = 16;
const ELEMENT_BYTES: usize = 16;
const BRANCH: u16 = 1;
const LEAF: u16 = 2;
const DEPTH_MAX: usize = 64;

/// The values of `keys` in the tree of `root`, None for those that are not there. All is None when a page is not what it
/// should be. `sums`: the CRC-32C of every page, by page; None leaves them unproved.
#[pyfunction]
pub fn find_many<'py>(
    py: Python<'py>,
    map: &Bound<'py, PyAny>,
    page_bytes: usize,
    root: u64,
    keys: Vec<Bound<'py, PyBytes>>,
    sums: Option<&Bound<'py, PyAny>>,
) -> PyResult<Option<Bound<'py, PyList>>> {
    let map = PyBuffer::<u8>::get(map)?;
    let sums = sums.map(PyBuffer::<u32>::get).transpose()?;
    let tree =
        Tree { map: bytes_of(py, &map)?, page_bytes, sums: sums.as_ref().map(|sums| bytes_of(py, sums)).transpose()? };
    let sought: Vec<&[u8]> = keys.iter().map(|key| key.as_bytes()).collect();
    let Some(values) = tree.find_many(root, &sought) else { return Ok(None) };
    PyList::new(py, values.into_iter().map(|value| value.map(|bytes| PyBytes::new(py, bytes)))).map(Some)
}

/// What a buffer holds, while it stays exported.
fn bytes_of<'a, T: pyo3::buffer::Element>(py: Python<'a>, buffer: &'a PyBuffer<T>) -> PyResult<&'a [T]> {
    let cells = buffer.as_slice(py).ok_or_else(|| PyBufferError::new_err("a contiguous buffer is needed"))?;
    // SAFETY: `cells` covers the buffer, which stays exported, and the GIL is held, so that no Python code writes to it.
    // Pages that a commit is writing through the file meanwhile are none that the tree of `root` reaches.
    Ok(unsafe { std::slice::from_raw_parts(cells.as_ptr().cast::<T>(), cells.len()) })
}

struct Tree<'a> {
    map: &'a [u8],
    page_bytes: usize,
    sums: Option<&'a [u32]>,
}

/// A branch or leaf page with its overflow pages.
struct Page<'a> {
    kind: u16,
    count: usize,
    bytes: &'a [u8],
}

/// A page on the way down, and which keys lie below it: [low, high), None where there is no bound.
struct Step<'a> {
    page: Page<'a>,
    low: Option<&'a [u8]>,
    high: Option<&'a [u8]>,
}

impl Step<'_> {
    fn covers(&self, key: &[u8]) -> bool {
        self.low.is_none_or(|low| low <= key) && self.high.is_none_or(|high| key < high)
    }
}

impl<'a> Tree<'a> {
    fn find_many(&self, root: u64, keys: &[&[u8]]) -> Option<Vec<Option<&'a [u8]>>> {
        let mut order: Vec<usize> = (0..keys.len()).collect();
        order.sort_unstable_by_key(|&at| keys[at]);
        let mut values = vec![None; keys.len()];
        let mut path = vec![Step { page: self.page(root)?, low: None, high: None }];
        for at in order {
            let key = keys[at];
            while path.last().is_some_and(|step| !step.covers(key)) {
                path.pop();
            }
            while path.last()?.page.kind == BRANCH {
                if path.len() > DEPTH_MAX {
                    return None;
                }
                let step = self.below(path.last()?, key)?;
                path.push(step);
            }
            values[at] = path.last()?.page.value(key)?;
        }
        Some(values)
    }

    /// The page below a branch that would hold `key`.
    fn below(&self, above: &Step<'a>, key: &[u8]) -> Option<Step<'a>> {
        let page = &above.page;
        // The first separator does not matter: what is before it lies below the first child too.
        let (mut first, mut last) = (1, page.count);
        while first < last {
            let middle = (first + last) / 2;
            if page.separator(middle)? <= key {
                first = middle + 1;
            } else {
                last = middle;
            }
        }
        let child = first - 1;
        let low = if child > 0 { Some(page.separator(child)?) } else { above.low };
        let high = if first < page.count { Some(page.separator(first)?) } else { above.high };
        Some(Step { page: self.page(page.child(child)?)?, low, high })
    }

    fn page(&self, id: u64) -> Option<Page<'a>> {
        let number = usize::try_from(id).ok()?;
        let start = number.checked_mul(self.page_bytes)?;
        let head = self.proved(number)?;
        let overflow = word(head, 12)? as usize;
        let kind = half(head, 8)?;
        let count = usize::from(half(head, 10)?);
        if u64::from_le_bytes(head.get(..8)?.try_into().ok()?) != id
            || !matches!((kind, count), (LEAF, _) | (BRANCH, 1..))
        {
            return None;
        }
        for more in 1..=overflow {
            self.proved(number.checked_add(more)?)?;
        }
        let bytes = self.map.get(start..start.checked_add(overflow.checked_add(1)?.checked_mul(self.page_bytes)?)?)?;
        Some(Page { kind, count, bytes })
    }

    /// The bytes of one page, if they are what was written there.
    fn proved(&self, number: usize) -> Option<&'a [u8]> {
        let start = number.checked_mul(self.page_bytes)?;
        let bytes = self.map.get(start..start.checked_add(self.page_bytes)?)?;
        match self.sums {
            Some(sums) if *sums.get(number)? != crc32c::crc32c(bytes) => None,
            _ => Some(bytes),
        }
    }
}

impl<'a> Page<'a> {
    /// The value of `key` on a leaf: Some(None) when it is not there, None when the page makes no sense.
    fn value(&self, key: &[u8]) -> Option<Option<&'a [u8]>> {
        let (mut first, mut last) = (0, self.count);
        while first < last {
            let middle = (first + last) / 2;
            let element = HEADER_BYTES + ELEMENT_BYTES * middle;
            let start = element + word(self.bytes, element + 4)? as usize;
            let end = start + word(self.bytes, element + 8)? as usize;
            match self.bytes.get(start..end)?.cmp(key) {
                std::cmp::Ordering::Less => first = middle + 1,
                std::cmp::Ordering::Greater => last = middle,
                std::cmp::Ordering::Equal => {
                    return Some(Some(self.bytes.get(end..end + word(self.bytes, element + 12)? as usize)?));
                }
            }
        }
        Some(None)
    }

    fn separator(&self, at: usize) -> Option<&'a [u8]> {
        let element = HEADER_BYTES + ELEMENT_BYTES * at;
        let start = element + word(self.bytes, element)? as usize;
        self.bytes.get(start..start + word(self.bytes, element + 4)? as usize)
    }

    fn child(&self, at: usize) -> Option<u64> {
        let element = HEADER_BYTES + ELEMENT_BYTES * at;
        Some(u64::from_le_bytes(self.bytes.get(element + 8..element + 16)?.try_into().ok()?))
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}
