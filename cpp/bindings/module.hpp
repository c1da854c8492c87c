// One register_<area>.cpp per area; module.cpp calls them, and does nothing else.
#pragma once

#include <pybind11/pybind11.h>

void register_runtime(pybind11::module_ &m);
void register_arrays(pybind11::module_ &m);
void register_spans(pybind11::module_ &m);
void register_distributions(pybind11::module_ &m);
void register_folds(pybind11::module_ &m);
void register_ranges(pybind11::module_ &m);
void register_formats(pybind11::module_ &m);
void register_trail(pybind11::module_ &m);
void register_live(pybind11::module_ &m);
