//! Floor 3, connections.
