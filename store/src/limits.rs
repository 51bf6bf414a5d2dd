//! Every limit on what is read from outside or kept in memory, by name.

/// Longest plaintext of one chunk: 8 MiB.
pub const CHUNK_BYTES_MAX: usize = 8 << 20;
/// Longest plaintext of one frame: a full chunk on top of the frame target, 16 MiB.
pub const FRAME_BYTES_MAX: usize = 16 << 20;
/// Most chunks in one frame.
pub const FRAME_CHUNKS_MAX: usize = 1 << 16;
/// Longest pack: 256 MiB.
pub const PACK_BYTES_MAX: u64 = 256 << 20;
/// Longest sealed footer of a pack: 64 MiB.
pub const FOOTER_BYTES_MAX: usize = 64 << 20;
/// Most chunks in one pack.
pub const PACK_CHUNKS_MAX: usize = 1 << 21;
/// Most packs in one parity group.
pub const PARITY_DATA_MAX: usize = 128;
/// Most parity objects of one group.
pub const PARITY_OBJECTS_MAX: usize = 32;
/// Shortest stripe of a parity group: 4 KiB.
pub const STRIPE_BYTES_MIN: u32 = 4 << 10;
/// Longest stripe of a parity group: 1 MiB.
pub const STRIPE_BYTES_MAX: u32 = 1 << 20;
/// Longest table of a parity object: 16 MiB.
pub const PARITY_TABLE_BYTES_MAX: usize = 16 << 20;
/// Longest tree node: 1 MiB.
pub const NODE_BYTES_MAX: usize = 1 << 20;
/// Longest key of a tree entry: 64 KiB more than any path this program stores inline.
pub const TREE_KEY_BYTES_MAX: usize = 256 << 10;
/// Longest value of a tree entry: 512 KiB.
pub const TREE_VALUE_BYTES_MAX: usize = 512 << 10;
/// Largest size at which a node ends by force; the longest key and value on top still fit into a node.
pub const NODE_TARGET_BYTES_MAX: u32 = 128 << 10;
/// A node ends by force when its keys, written out in full, reach this: 1 MiB. Bounds the memory of a decoded
/// node whose keys share long beginnings; the longest key may come on top.
pub const NODE_KEYS_BYTES_MAX: usize = 1 << 20;
/// Longest schema name in a node's header.
pub const SCHEMA_NAME_BYTES_MAX: usize = 32;
/// Deepest tree.
pub const TREE_LEVEL_MAX: u8 = 16;
/// Longest small record (config, key slot, head, snapshot): 1 MiB.
pub const RECORD_BYTES_MAX: usize = 1 << 20;
/// Most key slots.
pub const KEY_SLOTS_MAX: usize = 1024;
/// Most generations of the repository key; all of them lie in each slot, 36 bytes each.
pub const KEY_GENERATIONS_MAX: usize = 4096;
/// Most memory that a key slot may ask Argon2id for, in KiB: 4 GiB.
pub const ARGON2_KIB_MAX: u32 = 4 << 20;
/// Most passes that a key slot may ask Argon2id for.
pub const ARGON2_PASSES_MAX: u32 = 64;
/// Most lanes that a key slot may ask Argon2id for.
pub const ARGON2_LANES_MAX: u32 = 64;
/// Shortest key file, bytes: 256 bits where it is random bytes, half of them where it is hexadecimal digits.
pub const KEY_FILE_BYTES_MIN: usize = 32;
