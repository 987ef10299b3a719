/* A shared library that takes the place of NVIDIA's driver: it hands out the functions that it was given. */

#include <string.h>

enum { MOST = 128, LONGEST = 64, NOT_FOUND = 500 /* CUDA_ERROR_NOT_FOUND */ };

static struct { char name[LONGEST]; void *function; } known[MOST];
static int count;

int answer(const char *name, void *function) {
    if (count == MOST || strlen(name) >= LONGEST) return 0;
    strcpy(known[count].name, name);
    known[count++].function = function;
    return 1;
}

/* What bindings find every other function with. */
int cuGetProcAddress_v2(const char *name, void **function, int version, unsigned long long flags, int *found) {
    (void)version, (void)flags;
    *function = strcmp(name, "cuGetProcAddress") ? 0 : (void *)cuGetProcAddress_v2;
    for (int k = 0; k < count; k++)
        if (!strcmp(known[k].name, name)) *function = known[k].function;
    if (found) *found = *function ? 0 : 1;
    return *function ? 0 : NOT_FOUND;
}
