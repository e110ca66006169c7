//! The edge: sockets and HTTP, limits, authentication, the only map from errors to codes.
