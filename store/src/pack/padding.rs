//! How long a pack is made, so that its length says little.

/// The next length at or above `len` with few significant bits (Padmé; Nikitin et al., "Reducing Metadata Leakage from
/// Encrypted Files and Communication with PURBs", 2019): leaks O(log log len) bits, adds at most 12 %, less for
/// longer objects. Lengths below 2 stay as they are.
pub fn padme(len: u64) -> u64 {
    if len < 2 {
        return len;
    }
    let exponent = len.ilog2();
    let significant = exponent.max(1).ilog2() + 1;
    let mask = (1u64 << exponent.saturating_sub(significant)) - 1;
    len.saturating_add(mask) & !mask
}
