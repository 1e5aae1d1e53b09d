// A stand-in with the fields of the message sensor_msgs/PointCloud2.
#pragma once
#include "sensor_msgs/msg/image.hpp"
#include "sensor_msgs/msg/point_field.hpp"

namespace sensor_msgs::msg {
struct PointCloud2 {
  std_msgs::msg::Header header;
  std::uint32_t height = 0, width = 0;
  std::vector<PointField> fields;
  bool is_bigendian = false;
  std::uint32_t point_step = 0, row_step = 0;
  std::vector<std::uint8_t> data;
  bool is_dense = false;
};
}  // namespace sensor_msgs::msg
