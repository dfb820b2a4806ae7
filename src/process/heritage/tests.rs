//! Who keeps what when another process takes over.
