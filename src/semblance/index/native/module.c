/* The library that Python loads through ctypes (see _kernel.py); as a module it is empty. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdlib.h>

#include "kernel.h"

/* Raised whenever the meaning of an exported function changes: Python refuses a library of another number. */
#define ABI 1

static const Path *const PATHS[] = {
#if X86_PATHS
    &path_avx512, &path_avx2, &path_popcnt, &path_portable,
#else
    NULL, NULL, NULL, &path_portable,
#endif
};

EXPORT int semblance_abi(void) { return ABI; }

EXPORT int semblance_usable(int path) { return PATHS[path] != NULL && PATHS[path]->usable(); }

EXPORT int semblance_nearest(int path, const uint64_t *codes, size_t n, size_t w, const uint64_t *queries, size_t q,
                             size_t k, int64_t *rows, int32_t *distances) {
    Asked asked = {codes, n, w, queries, q};
    return PATHS[path]->nearest(&asked, k, rows, distances);
}

EXPORT int semblance_within(int path, const uint64_t *codes, size_t n, size_t w, const uint64_t *queries, size_t q,
                            uint32_t radius, uint64_t **keys, int64_t *ends) {
    Asked asked = {codes, n, w, queries, q};
    return PATHS[path]->within(&asked, radius, keys, ends);
}

EXPORT int semblance_count(int path, const uint64_t *codes, size_t n, size_t w, const uint64_t *queries, size_t q,
                           size_t bits, int64_t *out) {
    Asked asked = {codes, n, w, queries, q};
    return PATHS[path]->count(&asked, bits, out);
}

EXPORT void semblance_free(void *memory) { free(memory); }

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_native", NULL, -1, NULL, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__native(void) { return PyModule_Create(&definition); }
