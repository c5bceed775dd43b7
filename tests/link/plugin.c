/* A plugin that brings the library along: linked to it, or with the static one inside. What a host finds in it is a table, so
 * the names of two plugins' functions never meet. */
#include "plugin.h"

__attribute__((visibility("default"))) const struct engine_table *plugin_table(void) {
#define ENTRY(name) .name = name,
    static const struct engine_table table = {FUNCTIONS(ENTRY)};
    return &table;
}
