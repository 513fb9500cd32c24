// Arithmetic by name, as in the attribute of the operation and in Python.
#pragma once

#include <cstring>

#include "../core/problem.hpp"

namespace maskmill {

inline bool arithmetic_of(const char* name, Arithmetic& found) {
    if (std::strcmp(name, "f32") == 0) {
        found = Arithmetic::f32;
    } else if (std::strcmp(name, "bf16") == 0) {
        found = Arithmetic::bf16;
    } else if (std::strcmp(name, "i8") == 0) {
        found = Arithmetic::i8;
    } else {
        return false;
    }
    return true;
}

}  // namespace maskmill
