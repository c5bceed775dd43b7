/* Moves bytes with the library that it is linked to. Compiled as C and as C++. */
#include "moves.h"

int main(void) { return moves_bytes(); }
