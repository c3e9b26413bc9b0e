//! Bindings in a row, for types that choose one by number. A binding knows its place, so that
//! removing one is moving the last.

use super::super::binding::Bindings;

/// Bindings in a row, each with what its exchange type wants to know of it.
#[derive(Debug)]
pub(in super::super) struct Places<T> {
    row: Vec<(u32, T)>,
}

impl<T> Default for Places<T> {
    fn default() -> Places<T> {
        Places { row: Vec::new() }
    }
}

impl<T> Places<T> {
    pub(super) fn insert(&mut self, slot: u32, note: T, bindings: &mut Bindings) {
        bindings.get_mut(slot).place = place(self.row.len());
        self.row.push((slot, note));
    }

    pub(super) fn remove(&mut self, slot: u32, bindings: &mut Bindings) {
        let at = bindings.get(slot).place;
        let (removed, _) = self.row.swap_remove(at as usize);
        assert_eq!(removed, slot, "a binding knows its place");
        if let Some((moved, _)) = self.row.get(at as usize) {
            bindings.get_mut(*moved).place = at;
        }
    }

    pub(super) fn as_slice(&self) -> &[(u32, T)] {
        &self.row
    }
}

fn place(at: usize) -> u32 {
    u32::try_from(at).expect("BINDING_COUNT_MAX places")
}
