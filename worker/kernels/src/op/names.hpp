// Arithmetic by the name that the operation's attribute and the Python side use.
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
