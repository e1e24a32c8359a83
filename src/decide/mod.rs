//! Floor 5: one pure function from a request's view to what is done with it.
