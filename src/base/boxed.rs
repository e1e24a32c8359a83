//! Values that are made where they will lie.

use std::pin::Pin;

/// A box whose value is made in it. `Box::new` takes what was made on the stack, and a future's copy costs all its size,
/// although it begins with next to nothing.
#[inline(always)]
pub fn boxed<T>(make: impl FnOnce() -> T) -> Box<T> {
    Box::write(Box::new_uninit(), make())
}

/// Likewise, pinned.
#[inline(always)]
pub fn pinned<T>(make: impl FnOnce() -> T) -> Pin<Box<T>> {
    Box::into_pin(boxed(make))
}
