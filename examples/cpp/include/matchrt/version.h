// The version of matchrt that these headers are of.
#pragma once

#define MATCHRT_VERSION "0.1.0"
