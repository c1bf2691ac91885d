// An instrument on a serial line, synthesizable: it takes queries byte by byte and answers byte by byte.
//
//   I             who it is: the four bytes DVM1
//   C n b1..bn    CRC-16/CCITT-FALSE (polynomial 1021, start FFFF) of n bytes, high byte first
//   S hi lo       seeds the generator (0 counts as 1); answers K
//   R n           n bytes of a Galois LFSR (taps B400), eight shifts a byte
//   anything else ?
//
// A byte comes in where rx_valid and rx_ready meet, and goes out where tx_valid and tx_ready meet.
`default_nettype none
module instrument (
    input  wire       clk,
    input  wire       rst,
    input  wire [7:0] rx,
    input  wire       rx_valid,
    output wire       rx_ready,
    output reg  [7:0] tx,
    output reg        tx_valid,
    input  wire       tx_ready
);
    localparam IDLE = 4'd0, NAME = 4'd1, CRC_LENGTH = 4'd2, CRC_BYTE = 4'd3, CRC_SHIFT = 4'd4, CRC_HIGH = 4'd5,
               CRC_LOW = 4'd6, SEED_HIGH = 4'd7, SEED_LOW = 4'd8, RANDOM_LENGTH = 4'd9, RANDOM_SHIFT = 4'd10,
               RANDOM_SEND = 4'd11;

    reg [3:0]  state;
    reg [7:0]  left;
    reg [2:0]  step;
    reg [15:0] crc;
    reg [15:0] lfsr;

    wire takes = state == IDLE || state == CRC_LENGTH || state == CRC_BYTE || state == SEED_HIGH
              || state == SEED_LOW || state == RANDOM_LENGTH;
    wire [15:0] seed = {lfsr[15:8], rx};

    assign rx_ready = takes && !tx_valid;

    wire got  = rx_valid && rx_ready;
    wire free = !tx_valid || tx_ready;

    always @(posedge clk) begin
        if (tx_valid && tx_ready)
            tx_valid <= 1'b0;
        case (state)
            IDLE: if (got) begin
                step <= 3'd0;
                case (rx)
                    "I": state <= NAME;
                    "C": begin state <= CRC_LENGTH; crc <= 16'hFFFF; end
                    "S": state <= SEED_HIGH;
                    "R": state <= RANDOM_LENGTH;
                    default: begin tx <= "?"; tx_valid <= 1'b1; end
                endcase
            end
            NAME: if (free) begin
                case (step[1:0])
                    2'd0: tx <= "D";
                    2'd1: tx <= "V";
                    2'd2: tx <= "M";
                    2'd3: tx <= "1";
                endcase
                tx_valid <= 1'b1;
                step <= step + 3'd1;
                if (step == 3'd3)
                    state <= IDLE;
            end
            CRC_LENGTH: if (got) begin
                left <= rx;
                state <= rx == 8'd0 ? CRC_HIGH : CRC_BYTE;
            end
            CRC_BYTE: if (got) begin
                crc <= crc ^ {rx, 8'd0};
                left <= left - 8'd1;
                state <= CRC_SHIFT;
            end
            CRC_SHIFT: begin
                crc <= {crc[14:0], 1'b0} ^ (crc[15] ? 16'h1021 : 16'h0000);
                step <= step + 3'd1;
                if (step == 3'd7)
                    state <= left == 8'd0 ? CRC_HIGH : CRC_BYTE;
            end
            CRC_HIGH: if (free) begin tx <= crc[15:8]; tx_valid <= 1'b1; state <= CRC_LOW; end
            CRC_LOW: if (free) begin tx <= crc[7:0]; tx_valid <= 1'b1; state <= IDLE; end
            SEED_HIGH: if (got) begin lfsr[15:8] <= rx; state <= SEED_LOW; end
            SEED_LOW: if (got) begin
                lfsr <= seed == 16'd0 ? 16'd1 : seed;
                tx <= "K";
                tx_valid <= 1'b1;
                state <= IDLE;
            end
            RANDOM_LENGTH: if (got) begin
                left <= rx;
                state <= rx == 8'd0 ? IDLE : RANDOM_SHIFT;
            end
            RANDOM_SHIFT: begin
                lfsr <= {1'b0, lfsr[15:1]} ^ (lfsr[0] ? 16'hB400 : 16'h0000);
                step <= step + 3'd1;
                if (step == 3'd7)
                    state <= RANDOM_SEND;
            end
            RANDOM_SEND: if (free) begin
                tx <= lfsr[7:0];
                tx_valid <= 1'b1;
                left <= left - 8'd1;
                state <= left == 8'd1 ? IDLE : RANDOM_SHIFT;
            end
            default: state <= IDLE;
        endcase
        if (rst) begin
            state <= IDLE;
            tx_valid <= 1'b0;
            step <= 3'd0;
            lfsr <= 16'd1;
        end
    end
endmodule
`default_nettype wire
