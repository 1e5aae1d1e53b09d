// Runs the C++ ROS node with the stand-ins of rclcpp and TensorRT: ros_node_check ENGINE HEIGHTxWIDTH...
// gives it grey images of these sizes, and prints "matched" or "not matched" after each. Without words, no parameter is given.
#define main node_main
#include "match_node.cpp"
#undef main

int main(int count, char** values) {
  if (count > 1) rclcpp::given["engine"] = values[1];
  rclcpp::meanwhile = [count, values] {
    for (int i = 2; i < count; ++i) {
      auto image = std::make_shared<Image>();
      if (std::sscanf(values[i], "%ux%u", &image->height, &image->width) != 2) throw std::runtime_error("no size");
      image->encoding = "mono8";
      for (std::uint32_t k = 0; k < image->height * image->width; ++k) {
        image->data.push_back(static_cast<std::uint8_t>(k * k % 251));
      }
      const std::size_t before = rclcpp::Publisher<PointCloud2>::sent.size();
      rclcpp::Subscription<Image>::newest.lock()->callback(image);
      std::puts(rclcpp::Publisher<PointCloud2>::sent.size() > before ? "matched" : "not matched");
    }
  };
  return node_main(count, values);
}
