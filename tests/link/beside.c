/* Moves bytes between two panics of another Rust library that it is linked to, and before and after them. */
#include "moves.h"

extern int caught_panics(int times);

int main(void) {
    if (caught_panics(3) != 3 || moves_bytes() != 0) return 1;
    return caught_panics(2) != 2;
}
