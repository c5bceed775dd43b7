//! Requests that are rows and columns: pages of some size, a stride apart, for each of several fields (layers of a cache).

use super::submit::Request;
use crate::error::{Error, Result};

/// One column: where its pages are on both sides, and how long each is.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Where page 0 is here.
    pub source: i64,
    /// Bytes between pages here.
    pub source_stride: i64,
    /// Where page 0 is at the target.
    pub target: i64,
    /// Bytes between pages at the target.
    pub target_stride: i64,
    /// Bytes of a page.
    pub len: i64,
}

/// Pages times fields, checked: no address of it leaves 64 bits.
pub struct Grid<'a> {
    sources: &'a [i64],
    targets: &'a [i64],
    fields: &'a [i64],
    opcode: i32,
    target: i32,
}

/// Numbers that make a field.
pub const FIELD_LEN: usize = 5;

impl<'a> Grid<'a> {
    /// Page i is number `sources[i]` here and `targets[i]` at the segment `target`; each [`FIELD_LEN`] of `fields` are a
    /// [`Field`]. -1 for lists that do not go together, or an address or a length that is negative or too large.
    pub fn new(
        opcode: i32,
        target: i32,
        sources: &'a [i64],
        targets: &'a [i64],
        fields: &'a [i64],
    ) -> Result<Self> {
        if sources.len() != targets.len() || !fields.len().is_multiple_of(FIELD_LEN) {
            return Err(Error::invalid(
                "a grid needs as many source as target pages, and five numbers per field",
            ));
        }
        let grid = Grid { sources, targets, fields, opcode, target };
        let count = sources.len().checked_mul(grid.field_count());
        count.ok_or_else(|| Error::invalid("pages times fields do not fit into 64 bits"))?;
        // An address grows or falls with the page, so the outermost pages decide.
        let outermost = |pages: &[i64]| pages.iter().min().copied().zip(pages.iter().max().copied());
        let Some((source, target)) = outermost(sources).zip(outermost(targets)) else { return Ok(grid) };
        for index in 0..grid.field_count() {
            grid.field(index)
                .check(source, target)
                .map_err(|why| Error::invalid(format!("field {index}: {why}")))?;
        }
        Ok(grid)
    }

    /// How many requests it is.
    pub fn count(&self) -> usize {
        self.sources.len() * self.field_count()
    }

    /// All pages of field 0 first, then those of field 1, and so on.
    pub fn request(&self, index: usize) -> Request {
        let (field, page) = (self.field(index / self.sources.len()), index % self.sources.len());
        let at = |base: i64, page: i64, stride: i64| base.wrapping_add(page.wrapping_mul(stride)) as u64;
        Request {
            opcode: self.opcode,
            target: self.target,
            source: at(field.source, self.sources[page], field.source_stride),
            offset: at(field.target, self.targets[page], field.target_stride),
            len: field.len as u64,
        }
    }

    fn field_count(&self) -> usize {
        self.fields.len() / FIELD_LEN
    }

    fn field(&self, index: usize) -> Field {
        let of = |place: usize| self.fields[index * FIELD_LEN + place];
        Field { source: of(0), source_stride: of(1), target: of(2), target_stride: of(3), len: of(4) }
    }
}

impl Field {
    /// `sources` and `targets`: the lowest and the highest page.
    fn check(&self, sources: (i64, i64), targets: (i64, i64)) -> std::result::Result<(), String> {
        if self.len < 0 {
            return Err(format!("a length of {} bytes", self.len));
        }
        let sides = [
            ("source", self.source, self.source_stride, sources),
            ("target", self.target, self.target_stride, targets),
        ];
        for (side, base, stride, (low, high)) in sides {
            for page in [low, high] {
                let start = i128::from(base) + i128::from(page) * i128::from(stride);
                if start < 0 || start + i128::from(self.len) > i128::from(u64::MAX) {
                    return Err(format!("{side} page {page} would be at {start}, outside of 64 bits"));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_come_field_by_field() {
        let fields = [1000, 10, 5000, 100, 8, 2000, -20, 6000, 0, 4];
        let grid = Grid::new(1, 7, &[3, 0], &[1, 2], &fields).unwrap();
        assert_eq!(grid.count(), 4);
        let places: Vec<_> = (0..4).map(|i| grid.request(i)).map(|r| (r.source, r.offset, r.len)).collect();
        assert_eq!(places, [(1030, 5100, 8), (1000, 5200, 8), (1940, 6000, 4), (2000, 6000, 4)]);
        assert!((0..4).all(|i| (grid.request(i).opcode, grid.request(i).target) == (1, 7)));
    }

    #[test]
    fn a_grid_without_pages_or_fields_is_empty() {
        assert_eq!(Grid::new(0, 0, &[], &[], &[-1; 5]).unwrap().count(), 0);
        assert_eq!(Grid::new(0, 0, &[1], &[1], &[]).unwrap().count(), 0);
    }

    #[test]
    fn what_leaves_64_bits_is_refused() {
        let ok = [1 << 40, 4096, 1 << 41, 4096, 4096];
        assert!(Grid::new(1, 0, &[0, 9], &[0, 9], &ok).is_ok());
        let with = |place: usize, value: i64| {
            let mut fields = ok;
            fields[place] = value;
            Grid::new(1, 0, &[0, 9], &[0, 9], &fields).err().map(|e| e.to_string())
        };
        for (place, value) in [(0, -1), (1, -(1 << 40)), (2, i64::MIN), (3, i64::MIN), (4, -1), (4, i64::MIN)]
        {
            let text = with(place, value).unwrap_or_else(|| panic!("place {place} may be {value}"));
            assert!(text.contains("field 0"), "{text}");
        }
        assert!(Grid::new(1, 0, &[i64::MAX], &[0], &[i64::MAX, i64::MAX, 0, 0, 1]).is_err());
        assert!(Grid::new(1, 0, &[0], &[0, 1], &ok).is_err());
        assert!(Grid::new(1, 0, &[0], &[0], &ok[..4]).is_err());
    }
}
